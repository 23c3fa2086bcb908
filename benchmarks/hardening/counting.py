"""How the parts report: what was counted, of how many, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

__all__ = ["Counted", "percentile", "show"]


class Counted(NamedTuple):
    """One thing that must hold."""

    what: str
    figure: str
    holds: bool


def percentile(values: Sequence[float], share: float) -> float:
    """Value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def show(results: Sequence[Counted]) -> None:
    """Print them as a table."""
    table = Table("what", "figure", "holds", box=None)
    for result in results:
        table.add_row(result.what, result.figure, "yes" if result.holds else "NO")
    Console(width=120).print(table)
