"""A loaded data set: records and where their pixels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medreasoner_trainer.data.pixels import decode_image, decode_mask
from medreasoner_trainer.data.record import Problem, Record
from napari_medreasoner.core.errors import ReadError

__all__ = [
    "FolderPictures",
    "Key",
    "Loaded",
    "Origin",
    "Pictures",
    "existing_inside",
    "read_bytes",
]

Key: TypeAlias = tuple[str, str]
"""Id and mask of a record, which stay when it gets another split or other texts."""

Origin: TypeAlias = tuple[str, int]
"""File, and line or row from 1; 0 where the file is one record."""


class Pictures(Protocol):
    """Where a data set keeps its pixels; errors are `ReadError`."""

    def image_file(self, record: Record) -> bytes:
        """The image as its file has it: PNG, JPEG or TIFF."""
        ...

    def mask(self, record: Record) -> NDArray[np.bool_]:
        """Mask of shape (row, column)."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A `DataSet`: what a loader read, and where it finds pixels when they are asked for."""

    records: tuple[Record, ...]
    problems: tuple[Problem, ...]
    pictures: Pictures
    origins: Mapping[Key, Origin]

    def with_records(self, records: Sequence[Record], problems: Sequence[Problem] = ()) -> Loaded:
        """The same pixels with other records; see `DataSet`."""
        return replace(self, records=tuple(records), problems=(*self.problems, *problems))

    def origin(self, record: Record) -> Origin:
        """Where the record was read; see `DataSet`."""
        return self.origins[record.id, record.mask]

    def image_file(self, record: Record) -> bytes:
        """The image as its file has it; see `DataSet`."""
        return self.pictures.image_file(record)

    def image(self, record: Record) -> NDArray[np.uint8]:
        """Pixels of shape (row, column, 3); see `DataSet`."""
        pixels = decode_image(self.pictures.image_file(record), record.image)
        _require_size(record, record.image, pixels.shape)
        return pixels

    def mask(self, record: Record) -> NDArray[np.bool_]:
        """Mask of shape (row, column); see `DataSet`."""
        mask = self.pictures.mask(record)
        _require_size(record, record.mask, mask.shape)
        return mask


def _require_size(record: Record, name: str, shape: tuple[int, ...]) -> None:
    width, height = record.image_size
    if shape[:2] != (height, width):
        raise ReadError(
            f'{name} has {shape[1]} x {shape[0]} pixels, but the record "{record.id}" says '
            f"{width} x {height}; correct one of them."
        )


@dataclass(frozen=True, slots=True)
class FolderPictures:
    """Image and mask files in a folder."""

    folder: Path

    def image_file(self, record: Record) -> bytes:
        """The bytes of the image file."""
        return read_bytes(existing_inside(self.folder, record.image))

    def mask(self, record: Record) -> NDArray[np.bool_]:
        """The decoded mask file."""
        return decode_mask(read_bytes(existing_inside(self.folder, record.mask)), record.mask)


def existing_inside(folder: Path, name: str) -> Path:
    """Find a file that a data set names.

    Raises
    ------
    ReadError
        When it is not there, or would lie outside the folder.
    """
    try:
        path = (folder / name).resolve()
        inside, there = path.is_relative_to(folder.resolve()), path.is_file()
    except (OSError, ValueError) as error:
        raise ReadError(f"{name!r:.200} cannot be the name of a file.") from error
    if not inside:
        raise ReadError(f"{name} lies outside the data folder.")
    if not there:
        raise ReadError(f"{name} does not exist in {folder}.")
    return path


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises
    ------
    ReadError
        When it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReadError(f"{path} cannot be read ({error.strerror}); check the file.") from error
