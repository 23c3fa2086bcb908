"""The plugin's correction log as records to train on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medreasoner_trainer.data.loaded import Key, Loaded, Origin, existing_inside, read_bytes
from medreasoner_trainer.data.pixels import picture_size
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import Record
from napari_medreasoner.core.corrections import CORRECTIONS, Correction
from napari_medreasoner.core.errors import ImageError, ProtocolError, ReadError
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from napari_medreasoner.core.metrics import box_iou

__all__ = ["read_corrections"]

_SAME_PLACE: Final = 0.5
"""IoU of the model's box and the final one from which its reasoning led to the right place."""

_SOURCE: Final = "corrections"


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Pictures of the log's folder, and masks of its lines."""

    folder: Path
    corrections: dict[str, Correction]

    def image_file(self, record: Record) -> bytes:
        return read_bytes(existing_inside(self.folder, record.image))

    def mask(self, record: Record) -> NDArray[np.bool_]:
        return self.corrections[record.id].mask.unpack()


def read_corrections(folder: Path, *, strict: bool = False) -> Loaded:
    """Read a correction log.

    Box and points of a record are those of the final mask, as in every data set: a user's box
    need not be tight. The model's trace is kept where it led to the right place.

    Parameters
    ----------
    folder : Path
        Holds `corrections.jsonl` and the pictures it names.
    strict : bool
        Raise at the first line that cannot be used; else it is left out and listed.

    Raises
    ------
    ReadError
        When the log cannot be read; when strict, at the first bad line.
    """
    problems = Problems(strict=strict)
    records: dict[str, Record] = {}
    kept: dict[str, Correction] = {}
    origins: dict[Key, Origin] = {}
    lines = read_bytes(folder / CORRECTIONS).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            correction = Correction.model_validate_json(line)
            # A finding that was corrected again is written again: the last one counts.
            record = records[correction.id] = _record(folder, correction)
            kept[correction.id] = correction
            origins[record.id, record.mask] = (CORRECTIONS, number)
        except (ValueError, ReadError, ImageError, ProtocolError) as error:
            problems.add(CORRECTIONS, number, error)
    return Loaded(tuple(records.values()), problems.found, _Pictures(folder, kept), origins)


def _record(folder: Path, correction: Correction) -> Record:
    path = existing_inside(folder, correction.image)
    mask = correction.mask.unpack()
    size = picture_size(path, correction.image)
    if mask.shape != size[::-1]:
        raise ReadError(
            f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels, the picture {size[0]} x "
            f"{size[1]}"
        )
    box = box_of_mask(mask)
    before = correction.proposed.box
    led_there = before is not None and box_iou(before, box) >= _SAME_PLACE
    return Record(
        id=correction.id,
        image=correction.image,
        mask=f"{correction.id}-mask.png",
        image_size=size,
        box=box,
        points=key_points_of_mask(mask),
        question=correction.question,
        trace=correction.trace if led_there else "",
        modality=correction.modality,
        category=correction.category,
        source=_SOURCE,
        group=correction.group,
        split="train",
    )
