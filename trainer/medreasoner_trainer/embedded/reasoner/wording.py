"""Questions the embedded reasoner is trained on, and the texts it learns to answer with."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator

from medreasoner_trainer.construct.clues import ask_about, ask_in_pieces, ask_nothing
from medreasoner_trainer.construct.questions import load_bank
from medreasoner_trainer.construct.traces import short_trace_for
from medreasoner_trainer.data import Record
from medreasoner_trainer.embedded.reasoner.views import Target, View
from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.grounding import format_answer, format_refusal

__all__ = [
    "REFUSED",
    "Asked",
    "Part",
    "Wording",
    "answer_texts",
    "first_sentence",
    "mistyped",
    "names_for_traces",
]

_FROM_BANK: Final = 0.2
_MODALITIES: Final = (
    "CT",
    "Dermoscopy",
    "Endoscopy",
    "Fundus",
    "Histopathology",
    "MRI",
    "Mammography",
    "OCT",
    "Ultrasound",
    "X-ray",
)

_MOST_LOST: Final = 0.6
"""Share of the words that an unclear question may lose."""

_MISTYPED: Final = 0.15
"""Share of its words with a letter missing: other tokens spell the rest."""

REFUSED: Final = 0.07
"""Share of questions without an answer, and again of those without one in the picture."""

_NOTHING: Final = format_refusal(
    "I read the question and find no structure in it that I know how to look for.",
    "This is not a question about a structure that I can find in an image; ask for one that is "
    "in it, or use another reasoner.",
)


class Asked(NamedTuple):
    """A question, the text that answers it, and what it is about unless it is refused."""

    question: str
    answer: str
    target: Target | None = None


Part = tuple[str, bool]
"""A part of an answer, and whether it is to be learned."""


@cache
def names_for_traces() -> Mapping[str, str]:
    """What a trace calls each category."""
    file = files("medreasoner_trainer.embedded.reasoner") / "names.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _reading(modality: str, category: str) -> str:
    """How the question is read: what is shown decides between structures that a word may mean."""
    name = names_for_traces()[category]
    return f"The image looks like {modality}, and I take the question to be about {name}."


def absent_answer(modality: str, category: str) -> str:
    """The text that says a structure is not in a picture of this kind."""
    return format_refusal(
        f"{_reading(modality, category)} This kind of image does not show it.",
        f"I take the question to be about {names_for_traces()[category]}, which I do not find in "
        "this image; ask for a structure that is in it, or draw a box by hand.",
    )


def answer_texts() -> list[str]:
    """Texts that answers are made of, for the tokenizer to learn."""
    categories = names_for_traces()
    every = [absent_answer(modality, name) for name in categories for modality in _MODALITIES]
    return [_NOTHING, *every]


class Wording:
    """Draws questions and answers.

    Parameters
    ----------
    records : sequence of Record
        Of the training split: they say which modality shows which categories.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._shown: defaultdict[str, set[str]] = defaultdict(set)
        for record in records:
            self._shown[record.modality].add(record.category)
        self._known = sorted({record.category for record in records})

    def draw(
        self,
        view: View,
        draw: Generator,
        unclear: float = 0.0,
        pieces: float = 0.0,
        refused: float = REFUSED,
    ) -> Asked:
        """Ask something of a view: mostly for one of its targets.

        Parameters
        ----------
        view : View
            What is shown.
        draw : Generator
            Of random numbers.
        unclear : float
            Share of questions that lose some of their words and letters, so that no single word is
            relied on. Those for what is not shown lose theirs as well: a model for which an unclear
            question is always one for what is in view refuses nothing.
        pieces : float
            Share of questions that are put together from pieces of others; of the rest `unclear`
            is a share.
        refused : float
            Share of questions that have no answer at all, and of those that have none in this kind
            of picture.
        """
        chance = draw.random()
        if chance < refused:
            return Asked(ask_nothing(draw, self._known), _NOTHING)
        target = view.targets[int(draw.integers(len(view.targets)))]
        others = sorted(set(self._known) - self._shown[target.record.modality])
        if others and chance < 2 * refused:
            category = others[int(draw.integers(len(others)))]
            absent = absent_answer(target.record.modality, category)
            return Asked(self._asked(category, draw, unclear, pieces), absent)
        question = self._asked(target.record.category, draw, unclear, pieces)
        return Asked(question, _answer(target, view), target)

    def read(self, draw: Generator, unclear: float, pieces: float) -> tuple[str, list[Part]]:
        """Ask without a picture: the answer is how the question is read, the first sentence.

        What the image looks like is given and not learned. All categories are asked for alike.

        Parameters
        ----------
        draw, unclear, pieces
            As for `draw`.
        """
        chance = draw.random()
        if chance < REFUSED:
            return ask_nothing(draw, self._known), [(first_sentence(_NOTHING), True)]
        category = self._known[int(draw.integers(len(self._known)))]
        fit = sorted(m for m, shown in self._shown.items() if category in shown)
        others = sorted(set(self._shown) - set(fit))
        if others and chance < 2 * REFUSED:
            fit, question = others, self._question(category, draw)
        else:
            question = self._asked(category, draw, unclear, pieces)
        modality = fit[int(draw.integers(len(fit)))]
        answer = first_sentence(format_refusal(_reading(modality, category), ""))
        first, seen, rest = answer.partition(f" image looks like {modality}")
        return question, [(first, True), (seen, False), (rest, True)]

    def _asked(self, category: str, draw: Generator, unclear: float, pieces: float) -> str:
        if draw.random() < pieces:
            return ask_in_pieces(category, _of_bank(category), draw)
        question = self._question(category, draw)
        if draw.random() < unclear:
            return mistyped(_thinned(question, draw), draw)
        return question

    def _question(self, category: str, draw: Generator) -> str:
        questions = _of_bank(category)
        if questions and draw.random() < _FROM_BANK:
            return questions[int(draw.integers(len(questions)))]
        return ask_about(category, draw)


def first_sentence(text: str) -> str:
    """Without its full stop, which is another token where a sentence follows."""
    return text.partition(".")[0]


def _of_bank(category: str) -> Sequence[str]:
    bank = load_bank().get(category)
    return () if bank is None else bank.for_split("train")


def _thinned(question: str, draw: Generator) -> str:
    """The question without some of its words."""
    words = question.split()
    kept = draw.random(len(words)) > draw.uniform(0, _MOST_LOST)
    kept[int(draw.integers(len(words)))] = True
    return " ".join(word for word, stays in zip(words, kept, strict=True) if stays)


def mistyped(question: str, draw: Generator) -> str:
    """The question with a letter missing in some of its words."""
    words = question.split()
    for place in np.flatnonzero(draw.random(len(words)) < _MISTYPED):
        word = words[place]
        gone = int(draw.integers(len(word)))
        # A word of one letter stays: a question may have no other.
        words[place] = word[:gone] + word[gone + 1 :] or word
    return " ".join(words)


def _answer(target: Target, view: View) -> str:
    # Short, from coarse to fine: each word takes a small model's time to learn, the user's to wait.
    trace = short_trace_for(view.picture, target.mask > 127)
    height, width = view.picture.shape[:2]
    x1, y1, x2, y2 = (round(value) for value in target.box)
    left, top = min(x1, width - 1), min(y1, height - 1)
    box = Box.from_corners(left, top, max(x2, left + 1), max(y2, top + 1))
    first, second = (
        Point(x=min(max(int(x), 0), width - 1), y=min(max(int(y), 0), height - 1))
        for x, y in target.points
    )
    read = _reading(target.record.modality, target.record.category)
    return format_answer(f"{read} {trace}", box, (first, second))
