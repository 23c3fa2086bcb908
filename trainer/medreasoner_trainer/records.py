"""Reading a folder of (image, structure) records such as UMRG-mini."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.geometry import Box, Point

__all__ = ["Record", "read_image", "read_mask", "read_records"]

_FILE: Final = "records.jsonl"


class _Line(BaseModel):
    """The fields of one line that are used; the file has more."""

    model_config = ConfigDict(frozen=True)

    image: str
    mask: str
    modality: str
    category: str
    bbox: tuple[int, int, int, int]
    points: tuple[tuple[int, int], tuple[int, int]]
    group: str
    split: str


@dataclass(frozen=True, slots=True)
class Record:
    """One structure in one image.

    Attributes
    ----------
    image, mask : Path
        Files of equal size in pixels.
    modality, category : str
        As in "CT" and "left kidney".
    box : Box
        Tight around the mask.
    points : tuple of two Point
        The mask's key points.
    group : str
        Patient or image that records share.
    """

    image: Path
    mask: Path
    modality: str
    category: str
    box: Box
    points: tuple[Point, Point]
    group: str


def read_records(folder: Path, split: str) -> list[Record]:
    """Read the records of one split, in file order.

    Parameters
    ----------
    folder : Path
        Holds `records.jsonl` and the files it names.
    split : str
        "train", "val" or "test".

    Raises
    ------
    ReadError
        When the folder has no such file, a line is damaged, or the split is empty.
    """
    path = folder / _FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(
            f"{folder} holds no readable {_FILE}; give the folder of the data set."
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = _Line.model_validate_json(line)
            if fields.split == split:
                records.append(_record(folder, fields))
        except (ValidationError, json.JSONDecodeError) as error:
            raise ReadError(f"Line {number} of {path} is not a record; repair it.") from error
    if not records:
        raise ReadError(f'{path} has no record of the split "{split}"; nothing can be derived.')
    return records


def _record(folder: Path, fields: _Line) -> Record:
    (ax, ay), (bx, by) = fields.points
    return Record(
        folder / fields.image,
        folder / fields.mask,
        fields.modality,
        fields.category,
        Box.from_corners(*fields.bbox),
        (Point(x=ax, y=ay), Point(x=bx, y=by)),
        fields.group,
    )


def read_image(record: Record) -> NDArray[np.uint8]:
    """Pixels of shape (row, column, 3).

    Raises
    ------
    ReadError
        When the file is missing or is not an image.
    """
    return _pixels(record.image, "RGB")


def read_mask(record: Record) -> NDArray[np.bool_]:
    """Mask of shape (row, column).

    Raises
    ------
    ReadError
        When the file is missing or is not an image.
    """
    return _pixels(record.mask, "L") > 0


def _pixels(path: Path, mode: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except (OSError, UnidentifiedImageError) as error:
        raise ReadError(f"{path} cannot be read as an image; restore the data set.") from error
