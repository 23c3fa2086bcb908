"""Coded terms that a finding can be given, by plain English name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Final, NamedTuple

from napari_medreasoner.imaging.writers.segment import Term

__all__ = ["TERMS", "Coded"]


class Coded(NamedTuple):
    """What `Segment` is given: category, kind, and the side where it has one."""

    category: Term
    kind: Term
    side: Term | None = None


def _term(entry: Mapping[str, str]) -> Term:
    return Term(entry["value"], entry.get("scheme", "SCT"), entry["meaning"])


def _read() -> Iterator[tuple[str, Coded]]:
    table: dict[str, Any] = tomllib.loads(files(__package__).joinpath("terms.toml").read_text())
    sides = {name: _term(entry) for name, entry in table.pop("sides").items()}
    for group in table.values():
        category = _term(group["category"])
        for name, entry in group["terms"].items():
            kind = _term(entry)
            yield name, Coded(category, kind)
            if entry.get("sides"):
                for side, term in sides.items():
                    yield f"{side} {name}", Coded(category, kind, term)


TERMS: Final[Mapping[str, Coded]] = dict(sorted(_read()))
"""As in "left kidney"; sorted by name. "tissue" is the one that says the least."""
