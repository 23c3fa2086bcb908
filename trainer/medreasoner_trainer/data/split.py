"""Splits: random hold-out, by group, and out of distribution; all reproducible from a seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from medreasoner_trainer.data.record import Record
from napari_medreasoner.core.errors import SettingsError

__all__ = ["hold_out", "hold_out_groups", "out_of_distribution"]

_TRAIN: Final = "train"
_TEST: Final = "test"
_FREQUENT: Final = 5
"""Kinds of target trained on out of distribution (paper, appendix D.3)."""


def hold_out(records: Sequence[Record], test: float, seed: int) -> list[Record]:
    """Hold out records at random for the test, the rest train, as the paper holds out 2.5K.

    Records of one image or patient may part; `hold_out_groups` keeps them together.

    Parameters
    ----------
    records : sequence of Record
        Their order does not matter, nor the split they have.
    test : float
        How many; below 1 a share of all.
    seed : int
        Another seed gives another split.

    Raises
    ------
    SettingsError
        When that many cannot be held out.
    """
    drawn = _drawn({record.id for record in records}, test, seed)
    return [_in_split(record, _TEST if record.id in drawn else _TRAIN) for record in records]


def hold_out_groups(records: Sequence[Record], test: float, seed: int) -> list[Record]:
    """Hold out whole groups until the test has at least so many records; see `hold_out`."""
    wanted = _count(len(records), test)
    sizes = Counter(_group(record) for record in records)
    chosen: set[str] = set()
    held = 0
    for group in _shuffled(sizes, seed):
        if held >= wanted:
            break
        chosen.add(group)
        held += sizes[group]
    return [_in_split(record, _TEST if _group(record) in chosen else _TRAIN) for record in records]


def out_of_distribution(
    records: Sequence[Record],
    test: float,
    seed: int,
    by: Literal["supercategory", "category"],
) -> list[Record]:
    """Train on the five most frequent kinds of target, test on all others (paper, appendix D.3).

    The paper says "5 most frequent categories" and "the other 9 categories", which can only be
    super-categories; with its word taken literally `by` is "category". One image may show targets
    of both sides: such a group serves one side, and its records of the other are in no split.

    Parameters
    ----------
    records, seed
        As in `hold_out`.
    test : float
        How many of the groups with targets of both sides serve the test; below 1 a share.
    by : "supercategory" or "category"
        What a kind of target is.

    Raises
    ------
    SettingsError
        When there are not more than five kinds, or not that many such groups.
    """
    kinds = Counter(getattr(record, by) for record in records)
    if len(kinds) <= _FREQUENT:
        raise SettingsError(
            f"The data have {len(kinds)} kinds of target by {by}, but five train and the rest "
            "test; choose other data or another split."
        )
    ranked = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    frequent = set(ranked[:_FREQUENT])
    sides: dict[str, set[str]] = defaultdict(set)
    for record in records:
        sides[_group(record)].add(_side(getattr(record, by) in frequent))
    mixed = {group for group, found in sides.items() if len(found) > 1}
    testing = _drawn(mixed, test, seed) if mixed else set()
    serves = {group: _TEST if group in testing else _TRAIN for group in mixed}
    result = []
    for record in records:
        side = _side(getattr(record, by) in frequent)
        kept = serves.get(_group(record), side) == side
        result.append(_in_split(record, side if kept else ""))
    return result


def _side(frequent: bool) -> str:
    return _TRAIN if frequent else _TEST


def _group(record: Record) -> str:
    return record.group or record.image


def _in_split(record: Record, split: str) -> Record:
    return record.model_copy(update={"split": split})


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order that depends on the seed and the names alone."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _drawn(names: set[str], test: float, seed: int) -> set[str]:
    return set(_shuffled(names, seed)[: _count(len(names), test)])


def _count(available: int, test: float) -> int:
    count = round(test * available) if test < 1 else int(test)
    if not 0 < count < available:
        raise SettingsError(
            f"{count} of {available} cannot be held out for the test; give a number between them."
        )
    return count
