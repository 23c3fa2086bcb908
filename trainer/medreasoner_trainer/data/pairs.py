"""A folder with `images` and `masks`, paired by the stems of their names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from medreasoner_trainer.data.loaded import FolderPictures, Loaded, existing_inside, read_bytes
from medreasoner_trainer.data.pixels import decode_mask
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import Record
from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask

__all__ = ["IMAGES", "MASKS", "read_pairs"]

IMAGES: Final = "images"
MASKS: Final = "masks"


def read_pairs(folder: Path, *, strict: bool) -> Loaded:
    """Read a folder of pairs; box and key points are those of the mask, the stem is the id.

    Raises
    ------
    ReadError
        When strict, at the first image without a usable mask.
    """
    problems = Problems(strict=strict)
    masks = {path.stem: path for path in sorted((folder / MASKS).iterdir())}
    records = []
    for image in sorted((folder / IMAGES).iterdir()):
        try:
            if image.stem not in masks:
                raise ReadError(f"There is no mask with the stem {image.stem} in {MASKS}.")
            records.append(_record(folder, image, masks[image.stem]))
        except (ValueError, ReadError, ImageError) as error:
            problems.add(f"{IMAGES}/{image.name}", 0, error)
    return Loaded(tuple(records), problems.found, FolderPictures(folder))


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
