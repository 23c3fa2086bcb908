"""Wide wording for small models, which know only the words that their training questions hold.

A clue names a category or points at it. Whoever wrote the clues did not see the bank of
questions, so its held-out ones still measure what a model understands.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

__all__ = [
    "Clues",
    "Unanswerable",
    "ask_about",
    "ask_in_pieces",
    "ask_nothing",
    "load_clues",
    "load_frames",
    "load_unanswerable",
]

_FOLDER: Final = files("medreasoner_trainer.construct") / "clues"
_FRAMES: Final = "frames.toml"
_UNANSWERABLE: Final = "unanswerable.toml"
_KINDS: Final = ("name", "thing", "stem")
_SHARES: Final = (0.25, 0.5, 0.25)

_MOST_PIECES: Final = 3
_PIECE: Final = (2, 7)
"""Least and most words of a piece."""

_SHUFFLED: Final = 0.3
"""Share of questions in pieces whose words are shuffled."""


class Clues(BaseModel):
    """Wording for one category; sides are the patient's. Of lesions, some tell a subtype.

    Attributes
    ----------
    names : tuple of str
        The name, its synonyms and abbreviations, as noun phrases.
    things : tuple of str
        Noun phrases that point at the structure without naming it.
    stems : tuple of str
        Whole questions that imply it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: Annotated[tuple[str, ...], Field(min_length=6)]
    things: Annotated[tuple[str, ...], Field(min_length=60)]
    stems: Annotated[tuple[str, ...], Field(min_length=25)]


class Unanswerable(BaseModel):
    """What is asked in vain.

    Attributes
    ----------
    other_body : tuple of str
        Noun phrases for parts of the body that are no category.
    beyond : tuple of str
        Whole questions that no image answers, or that no structure is the answer to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    other_body: Annotated[tuple[str, ...], Field(min_length=1)]
    beyond: Annotated[tuple[str, ...], Field(min_length=1)]


@cache
def load_clues() -> Mapping[str, Clues]:
    """Clues by category, of all super-categories."""
    found: dict[str, object] = {}
    for file in sorted(_FOLDER.iterdir(), key=lambda file: file.name):
        if file.name not in {_FRAMES, _UNANSWERABLE}:
            found |= tomllib.loads(file.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Clues]).validate_python(found)


@cache
def load_frames() -> tuple[str, ...]:
    """Questions with a gap, ``{thing}``, for a name or a thing."""
    frames = tomllib.loads((_FOLDER / _FRAMES).read_text(encoding="utf-8"))["frames"]
    return TypeAdapter(tuple[str, ...]).validate_python(frames)


@cache
def load_unanswerable() -> Unanswerable:
    """Questions, and things to ask for, that have no answer in an image."""
    found = tomllib.loads((_FOLDER / _UNANSWERABLE).read_text(encoding="utf-8"))
    return Unanswerable.model_validate(found)


def ask_about(category: str, draw: np.random.Generator) -> str:
    """Draw a question for a category of the clues: named, pointed at, or implied."""
    clues = load_clues()[category]
    kind = draw.choice(_KINDS, p=_SHARES)
    if kind == "stem":
        return _one_of(clues.stems, draw)
    return _framed(clues.names if kind == "name" else clues.things, draw)


def ask_in_pieces(category: str, others: Sequence[str], draw: np.random.Generator) -> str:
    """Draw words that only together tell the category, in no grammar.

    Parameters
    ----------
    category : str
        Of the clues.
    others : sequence of str
        Further questions about it.
    draw : Generator
        Of random numbers.

    Returns
    -------
    str
        One to three pieces of clues and questions: no two are alike, so that they cannot be
        learned by heart and every word has to count, as in a classifier of words.
    """
    clues = load_clues()[category]
    # Things twice: frames leave less of them than of stems in whole questions.
    wholes = [*clues.things, *clues.things, *clues.stems, *others]
    words: list[str] = []
    for _ in range(int(draw.integers(1, _MOST_PIECES + 1))):
        whole = _one_of(wholes, draw).split()
        length = int(draw.integers(_PIECE[0], _PIECE[1] + 1))
        start = int(draw.integers(max(1, len(whole) - length + 1)))
        words += whole[start : start + length]
    if draw.random() < _SHUFFLED:
        words = [words[place] for place in draw.permutation(len(words))]
    return " ".join(words)


def ask_nothing(draw: np.random.Generator, known: Collection[str]) -> str:
    """Draw a question without an answer; no part of the body that is `known` is asked for."""
    unanswerable = load_unanswerable()
    if draw.random() < 0.5:
        return _one_of(unanswerable.beyond, draw)
    unknown = [p for p in unanswerable.other_body if not any(name in p for name in known)]
    return _framed(unknown, draw)


def _framed(things: Sequence[str], draw: np.random.Generator) -> str:
    question = _one_of(load_frames(), draw).format(thing=_one_of(things, draw))
    return question[0].upper() + question[1:]


def _one_of(options: Sequence[str], draw: np.random.Generator) -> str:
    return options[int(draw.integers(len(options)))]
