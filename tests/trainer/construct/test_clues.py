"""Clues: complete, unambiguous, and drawn as sentences."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from medreasoner_trainer.construct.clues import (
    ask_about,
    ask_nothing,
    load_clues,
    load_frames,
    load_unanswerable,
)

CATEGORIES = {
    "liver", "spleen", "pancreas", "stomach", "gallbladder", "left kidney", "right kidney",
    "left adrenal gland", "right adrenal gland", "esophagus", "aorta", "inferior vena cava",
    "portal and splenic vein", "trachea", "left lung", "right lung", "lungs", "cardiomediastinum",
    "ground glass opacity", "consolidation", "pleural effusion", "left heart chambers",
    "left ventricle", "right ventricle", "myocardium", "left atrium", "optic disc", "optic cup",
    "edema", "polyp", "skin lesion", "benign breast tumor", "malignant breast tumor",
    "breast lesion", "colorectal gland", "hippocampi", "anterior hippocampus",
    "posterior hippocampus", "glioma", "meningioma", "pituitary tumor",
}  # fmt: skip
SENTENCE = re.compile(r"[A-Z].*[?.!]", re.DOTALL)
NOUN_PHRASE = re.compile(r"[a-z].*[^?.!]")


def test_every_category_has_enough_of_each_kind() -> None:
    clues = load_clues()
    assert set(clues) == CATEGORIES
    for found in clues.values():
        assert 6 <= len(found.names) <= 15
        assert 140 <= len(found.things) <= 270
        assert 100 <= len(found.stems) <= 210


def test_no_phrase_stands_for_two_categories_nor_twice_for_one() -> None:
    counts = Counter(
        phrase.casefold().rstrip("?.!")
        for clues in load_clues().values()
        for phrase in (*clues.names, *clues.things, *clues.stems)
    )
    assert [phrase for phrase, count in counts.items() if count > 1] == []


def test_names_and_things_fit_into_frames_and_stems_are_sentences() -> None:
    for clues in load_clues().values():
        assert all(NOUN_PHRASE.fullmatch(phrase) for phrase in (*clues.names, *clues.things))
        assert all(SENTENCE.fullmatch(stem) for stem in clues.stems)


@pytest.mark.parametrize("organ", ["kidney", "lung", "adrenal gland"])
def test_what_differs_only_by_side_says_the_side(organ: str) -> None:
    left, right = (load_clues()[f"{side} {organ}"] for side in ("left", "right"))
    assert not re.search(r"\bright\b", str(left), re.IGNORECASE)
    assert not re.search(r"\bleft\b", str(right), re.IGNORECASE)
    mirrored = {re.sub(r"\bleft\b", "right", thing) for thing in left.things}
    assert len(mirrored & set(right.things)) >= 45


def test_frames_have_one_gap() -> None:
    frames = load_frames()
    assert 80 <= len(frames) == len(set(frames)) <= 100
    assert all(re.findall(r"\{.*?\}", frame) == ["{thing}"] for frame in frames)


def test_what_cannot_be_answered_is_no_category() -> None:
    unanswerable = load_unanswerable()
    assert len(set(unanswerable.other_body)) == len(unanswerable.other_body) >= 450
    assert len(set(unanswerable.beyond)) == len(unanswerable.beyond) >= 700
    assert all(SENTENCE.fullmatch(question) for question in unanswerable.beyond)
    named = {name for clues in load_clues().values() for name in clues.names}
    assert not named & set(unanswerable.other_body)


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_questions_are_drawn_again_alike_and_read_as_sentences(category: str) -> None:
    first, second = np.random.default_rng(7), np.random.default_rng(7)
    asked = [ask_about(category, first) for _ in range(60)]
    assert asked == [ask_about(category, second) for _ in range(60)]
    assert all(SENTENCE.fullmatch(question) for question in asked)
    assert len(set(asked)) > 30


def test_a_quarter_of_the_questions_names_the_category_and_a_quarter_implies_it() -> None:
    draw, clues = np.random.default_rng(0), load_clues()["spleen"]
    asked = [ask_about("spleen", draw) for _ in range(2000)]
    stems = sum(question in clues.stems for question in asked)
    named = sum(any(name in question.lower() for name in clues.names) for question in asked)
    assert stems == pytest.approx(500, abs=80)
    assert named == pytest.approx(500, abs=80)


def test_questions_without_an_answer_leave_out_what_is_known() -> None:
    draw = np.random.default_rng(3)
    asked = [ask_nothing(draw, {"urinary bladder", "femur"}) for _ in range(3000)]
    assert all(SENTENCE.fullmatch(question) for question in asked)
    assert not any("urinary bladder" in q or "femur" in q for q in asked)
    beyond = sum(question in load_unanswerable().beyond for question in asked)
    assert beyond == pytest.approx(1500, abs=120)
    again = np.random.default_rng(3)
    assert asked == [ask_nothing(again, {"urinary bladder", "femur"}) for _ in asked]
