"""What is wrong with a data set, and what is in it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medreasoner_trainer.data.duplicates import close_pairs, perceptual_hash
from medreasoner_trainer.data.record import DataSet, Record
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.geometry import Box
from napari_medreasoner.core.masks import box_of_mask

__all__ = ["COUNTED", "Finding", "check_data", "count_records"]

COUNTED: Final = ("modality", "supercategory", "category", "tier")
"""Fields of a record that are counted for each split."""


_Target: TypeAlias = tuple[bytes, bytes, str]
"""Hash of the image, hash of the mask, question."""


class Finding(NamedTuple):
    """Something wrong: its kind, the record, group or file, and the particulars."""

    kind: str
    where: str
    detail: str


def check_data(data: DataSet) -> list[Finding]:
    """Open everything and compare it with what the records say.

    Several records of one image in one split are as they should be, also of one mask when their
    questions differ. A leak is a group, or an image that looks the same, in two splits; records
    in no split do not count.
    """
    findings = [
        Finding("unusable record", f"{problem.file}:{problem.line}", problem.reason)
        for problem in data.problems
    ]
    findings += _duplicate_ids(data.records)
    findings += _leaking_groups(data.records)
    hashes: dict[str, NDArray[np.bool_]] = {}
    targets: dict[_Target, str] = {}
    for record in data.records:
        findings += _image_findings(data, record, hashes)
        findings += _mask_findings(data, record, hashes, targets)
    findings += _leaking_images(data.records, hashes)
    return findings


def count_records(records: Sequence[Record], field: str) -> dict[str, dict[str, int]]:
    """Count records by a field and split: {value: {split: records}}, most frequent first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[getattr(record, field)][record.split] += 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    return {value: dict(sorted(found.items())) for value, found in ranked}


def _duplicate_ids(records: Sequence[Record]) -> Iterator[Finding]:
    for name, count in Counter(record.id for record in records).items():
        if count > 1:
            yield Finding("duplicate id", name, f"{count} records")


def _leaking_groups(records: Sequence[Record]) -> Iterator[Finding]:
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.split:
            splits[record.group or record.image].add(record.split)
    for group, found in splits.items():
        if len(found) > 1:
            yield Finding("group in several splits", group, ", ".join(sorted(found)))


def _image_findings(
    data: DataSet, record: Record, hashes: dict[str, NDArray[np.bool_]]
) -> Iterator[Finding]:
    """Open each image once and keep its hash."""
    if record.image in hashes:
        return
    try:
        hashes[record.image] = perceptual_hash(data.image(record))
    except ReadError as error:
        yield Finding("unreadable image", record.id, str(error))


def _mask_findings(
    data: DataSet,
    record: Record,
    hashes: dict[str, NDArray[np.bool_]],
    targets: dict[_Target, str],
) -> Iterator[Finding]:
    try:
        mask = data.mask(record)
    except ReadError as error:
        yield Finding("unreadable mask", record.id, str(error))
        return
    if not mask.any():
        yield Finding("empty mask", record.id, record.mask)
        return
    tight = box_of_mask(mask)
    if tight != record.box:
        kind = "loose box" if _encloses(record.box, tight) else "box does not enclose the mask"
        yield Finding(kind, record.id, f"{list(record.box.corners)}, mask {list(tight.corners)}")
    for point in record.points:
        if not mask[point.y, point.x]:
            yield Finding("point outside the mask", record.id, f"({point.x}, {point.y})")
    if record.image in hashes:
        pixels = hashlib.sha256(mask.tobytes()).digest()
        target = (hashes[record.image].tobytes(), pixels, record.question)
        first = targets.setdefault(target, record.id)
        if first != record.id:
            yield Finding("same target and question twice", record.id, first)


def _encloses(outer: Box, inner: Box) -> bool:
    return (
        outer.x1 <= inner.x1
        and outer.y1 <= inner.y1
        and outer.x2 >= inner.x2
        and outer.y2 >= inner.y2
    )


def _leaking_images(
    records: Sequence[Record], hashes: dict[str, NDArray[np.bool_]]
) -> Iterator[Finding]:
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        if record.split and record.image in hashes:
            names[record.split][record.image] = None
    for one, other in combinations(sorted(names), 2):
        left, right = list(names[one]), list(names[other])
        pairs = close_pairs([hashes[name] for name in left], [hashes[name] for name in right])
        for first, second, bits in pairs:
            where = f"{left[first]} ({one}), {right[second]} ({other})"
            yield Finding("same image in several splits", where, f"{bits} of 256 bits differ")
