"""Telling a user which records are left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medreasoner_trainer.data.record import Problem

__all__ = ["Strict", "tell_left_out"]

Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad record.")]


def tell_left_out(problems: Sequence[Problem]) -> None:
    """Write one line for each on standard error."""
    for problem in problems:
        place = f"{problem.file}, line {problem.line}" if problem.line else problem.file
        typer.echo(f"Left out: {place}: {problem.reason}", err=True)
