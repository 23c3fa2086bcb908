"""The question bank gives nothing away; traces say what was measured and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from medreasoner_trainer.construct import ask_records, question_for, trace_for
from medreasoner_trainer.construct.appearance import measure
from medreasoner_trainer.construct.questions import load_bank
from medreasoner_trainer.data import Record, open_data
from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from tests.trainer.sets import ellipse, mini, write_lines, write_set

BANK = load_bank()
SIDES = {"left", "right", "and"}
"""Words of a name that a question may use: sides tell paired organs apart."""

NOT_MEASURED = ("tumo", "lesion", "malignan", "benign", "cancer", "normal", "disease", "patient")


def given_away(category: str) -> str:
    """Pattern of the words no question about a category may have, with their plurals."""
    words = [word for word in category.split() if word not in SIDES]
    options = "|".join(re.escape(word) for word in (category, *words, *BANK[category].never))
    return rf"\b(?:{options})(?:s|es)?\b"


@pytest.mark.parametrize("category", sorted(BANK))
def test_questions_do_not_name_what_they_ask_for(category: str) -> None:
    pattern = re.compile(given_away(category), re.IGNORECASE)
    assert [text for text in BANK[category].questions if pattern.search(text)] == []
    assert pattern.search(f"Show the {category}.")
    assert BANK[category].never


def test_questions_are_sentences_and_each_is_asked_once() -> None:
    texts = [text for bank in BANK.values() for text in bank.questions]
    assert len({text.casefold() for text in texts}) == len(texts)
    for text in texts:
        assert text[0].isupper()
        assert text[-1] in "?."
        assert 4 <= len(text.split()) <= 30


def test_paired_organs_are_told_apart_in_every_question() -> None:
    other = {"left": ("right", "liver"), "right": ("left", "spleen", "stomach", "heart")}
    for category in ("left kidney", "right kidney", "left adrenal gland", "right adrenal gland"):
        side = category.split()[0]
        for text in BANK[category].questions:
            cues = (side, "liver", "gallbladder", "vein", *other["right"][1:])
            assert any(cue in text.lower() for cue in cues), text


def test_every_category_of_umrg_mini_has_questions() -> None:
    lines = (mini() / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["category"] for line in lines} <= set(BANK)


def record_of(mask: np.ndarray, **fields: str) -> Record:
    height, width = mask.shape
    return Record(
        id="r1",
        image="i.png",
        mask="m.png",
        image_size=(width, height),
        box=box_of_mask(mask),
        points=key_points_of_mask(mask),
        **({"modality": "CT", "category": "liver"} | fields),
    )


def test_a_question_is_chosen_by_id_and_seed() -> None:
    record = record_of(ellipse(60, 40, 20, 20, 9, 5))
    taught, kept = (
        {question_for(record.model_copy(update={"split": split}), seed) for seed in range(200)}
        for split in ("train", "test")
    )
    assert taught | kept == set(BANK["liver"].questions)
    assert not taught & kept
    assert len(kept) >= 3
    assert question_for(record, 5) == question_for(record.model_copy(), 5)
    several = {question_for(record.model_copy(update={"id": f"{i}"}), 5) for i in range(60)}
    assert len(several) > 5
    assert question_for(record.model_copy(update={"category": "unheard of"}), 5) == ""


def test_measures_of_known_shapes() -> None:
    mask = ellipse(200, 100, 50.5, 30.5, 40, 10)
    grey = np.where(mask, 150, 100).astype(np.uint8)
    seen = measure(np.repeat(grey[..., None], 3, axis=2), mask)
    assert seen.centre == pytest.approx((0.255, 0.31), abs=0.005)
    assert seen.area == pytest.approx(np.pi * 400 / 20000, rel=0.02)
    assert seen.elongation == pytest.approx(4, rel=0.03)
    assert seen.tilt == pytest.approx(0, abs=1)
    assert seen.solidity > 0.94
    assert seen.contrast == pytest.approx(50)
    frame = np.ones((60, 60), np.bool_)
    frame[10:50, 10:50] = False
    assert measure(np.zeros((60, 60, 3), np.uint8), frame).solidity == pytest.approx(2000 / 3600)
    whole = measure(np.zeros((9, 9, 3), np.uint8), np.ones((9, 9), np.bool_))
    assert (whole.contrast, whole.solidity) == (None, pytest.approx(1))
    with pytest.raises(ImageError):
        measure(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.bool_))


@pytest.mark.parametrize(
    ("x", "y", "a", "b", "inside", "expected", "never"),
    [
        (
            30,
            20,
            8,
            8,
            200,
            ["upper left", "bright"],
            ["right", "darker", "long and narrow", "oval"],
        ),
        (160, 85, 30, 6, 20, ["lower right", "dark", "long|stretch|farther"], ["left", "round"]),
        (100, 50, 6, 25, 101, ["centre", "up and down|vertical"], ["upper", "clearly"]),
    ],
)
def test_traces_say_what_is_there(
    x: float, y: float, a: float, b: float, inside: int, expected: list[str], never: list[str]
) -> None:
    mask = ellipse(200, 100, x, y, a, b)
    image = np.repeat(np.where(mask, inside, 100).astype(np.uint8)[..., None], 3, axis=2)
    record = record_of(mask, category="malignant breast tumor")
    traces = [trace_for(record, image, mask, seed) for seed in range(60)]
    assert len(set(traces)) > 50
    for pattern in expected:
        assert any(re.search(pattern, trace) for trace in traces)
    for trace in traces:
        assert 2 <= len(re.findall(r"[.](?: |$)", trace)) <= 5
        assert expected[0] in trace.rsplit(". ", 1)[-1]
        assert "CT" in trace.split(". ")[0], "what is described is introduced first"
        assert not any(re.search(rf"\b{word}\b", trace) for word in never)
        assert not any(word in trace.lower() for word in NOT_MEASURED)


def test_asking_keeps_what_is_there(tmp_path: Path) -> None:
    lines = write_set(tmp_path / "in", 3)
    lines[0] |= {"question": "Mine?", "trace": "My reasoning."}
    lines[2] |= {"category": "unheard of"}
    write_lines(tmp_path / "in", lines)
    first, second, third = ask_records(open_data(tmp_path / "in"), seed=1).records
    assert (first.question, first.trace) == ("Mine?", "My reasoning.")
    assert second.question in BANK["liver"].questions
    assert third.question == ""
    assert second.trace
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--seed", "1"]
    result = CliRunner().invoke(app, ["data", "ask", *arguments])
    assert "2 of 3 records have a question, 3 a trace." in result.output
    assert list(open_data(tmp_path / "out").records) == [first, second, third]
