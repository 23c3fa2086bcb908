"""A folder with `images` and `masks`, paired by the stems of their names.

It holds pixels only: questions, categories and the like are not in it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from medreasoner_trainer.data.gathering import Gathering
from medreasoner_trainer.data.loaded import FolderPictures, Loaded, existing_inside, read_bytes
from medreasoner_trainer.data.pixels import decode_mask, encode_mask, suffix_of
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import DataSet, Record
from medreasoner_trainer.data.saving import new_folder, write_picture
from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask

__all__ = ["IMAGES", "MASKS", "read_pairs", "save_pairs"]

IMAGES: Final = "images"
MASKS: Final = "masks"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST: Final = 150
"""Characters of an id in a file name."""


def read_pairs(folder: Path, *, strict: bool) -> Loaded:
    """Read a folder of pairs; box and key points are those of the mask, the stem is the id.

    Raises
    ------
    ReadError
        When strict, at the first image without a usable mask.
    """
    gathering = Gathering(strict=strict)
    masks = {path.stem: path for path in sorted((folder / MASKS).iterdir())}
    for image in sorted((folder / IMAGES).iterdir()):
        name = f"{IMAGES}/{image.name}"
        try:
            if image.stem not in masks:
                raise ReadError(f"There is no mask with the stem {image.stem} in {MASKS}.")
            gathering.add(name, 0, _record(folder, image, masks[image.stem]))
        except (ValueError, ReadError, ImageError) as error:
            gathering.leave_out(name, 0, error)
    return gathering.loaded(FolderPictures(folder))


def _record(folder: Path, image: Path, drawn: Path) -> Record:
    names = f"{IMAGES}/{image.name}", f"{MASKS}/{drawn.name}"
    existing_inside(folder, names[0])
    mask = decode_mask(read_bytes(existing_inside(folder, names[1])), names[1])
    return Record(
        id=image.stem,
        image=names[0],
        mask=names[1],
        image_size=(mask.shape[1], mask.shape[0]),
        box=box_of_mask(mask),
        points=key_points_of_mask(mask),
    )


def save_pairs(data: DataSet, folder: Path, *, strict: bool = False) -> DataSet:
    """Write one image (bytes unchanged) and one mask (grey PNG) a record into an empty folder.

    Their stem is the record's id, made fit for a file name. Parameters and result as of
    `medreasoner_trainer.data.jsonl.save_jsonl`.

    Raises
    ------
    ReadError
        When strict, at the first record whose pixels cannot be read.
    ExportError
        When something cannot be written.
    """
    new_folder(folder)
    left_out = Problems(strict=strict)
    written: list[Record] = []
    taken: set[str] = set()
    for record in data.records:
        with left_out.noted(*data.origin(record)):
            mask = encode_mask(data.mask(record))
            image = data.image_file(record)
            stem = _stem(record.id, taken)
            write_picture(folder / IMAGES / f"{stem}{suffix_of(image, record.image)}", image)
            write_picture(folder / MASKS / f"{stem}.png", mask)
            taken.add(stem)
            written.append(record)
    return data.with_records(written, left_out.found)


def _stem(name: str, taken: set[str]) -> str:
    stem = plain = _UNSAFE.sub("_", name)[:_LONGEST].strip(".") or "record"
    number = 1
    while stem in taken:
        number += 1
        stem = f"{plain}_{number}"
    return stem
