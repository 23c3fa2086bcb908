"""The bank of implicit questions: our own words, never naming what they ask for."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from medreasoner_trainer.construct.chance import chosen
from medreasoner_trainer.data.record import Record

__all__ = ["Bank", "load_bank", "question_for"]

_HELD_OUT: Final = {"val", "test"}


class Bank(BaseModel):
    """Questions for one category.

    Attributes
    ----------
    never : tuple of str
        Words that would give the target away; its own name need not be listed.
    questions : tuple of str
        One sentence or two each. True of every image of the category; sides are the patient's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    never: tuple[str, ...]
    questions: Annotated[tuple[str, ...], Field(min_length=8)]

    def for_split(self, split: str) -> tuple[str, ...]:
        """Questions a split may use: training never sees every third, which the others get."""
        held_out = split in _HELD_OUT
        return tuple(q for i, q in enumerate(self.questions) if (i % 3 == 2) == held_out)


@cache
def load_bank() -> Mapping[str, Bank]:
    """Questions by category, of all super-categories."""
    found: dict[str, object] = {}
    folder = files("medreasoner_trainer.construct") / "questions"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        found |= tomllib.loads(file.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Bank]).validate_python(found)


def question_for(record: Record, seed: int) -> str:
    """Choose a question by the record's id and the seed; empty for a category not in the bank.

    Records of the splits "val" and "test" get other questions than all others.
    """
    bank = load_bank().get(record.category)
    return chosen(bank.for_split(record.split), seed, record.id) if bank else ""
