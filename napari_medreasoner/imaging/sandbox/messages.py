"""What the child may answer: types, sizes and geometry, each checked again by the parent."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from mmap import mmap
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging.readers.limits import MAX_BYTES
from napari_medreasoner.imaging.readers.parts import MAX_PARTS, THUMBNAIL, Part
from napari_medreasoner.imaging.volume import SourceFrame, SourceGrid, Volume

__all__ = ["DTYPES", "Failure", "Header", "Listing", "memory_error"]

_Dtype = Literal[
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64",
]  # fmt: skip
DTYPES: Final = get_args(_Dtype)
"""Names of the types that voxels may have."""

_Text = Annotated[str, StringConstraints(max_length=1000)]
_Shape = tuple[PositiveInt, PositiveInt, PositiveInt]
_Row = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
_Matrix = tuple[_Row, _Row, _Row, _Row]
_Axis = Annotated[int, Field(ge=0, le=2)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(_Message):
    """The child's answer when there is no image: one sentence for the user."""

    error: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


def memory_error(path: Path, memory: int) -> str:
    """Sentence for a file that needs more than `memory` bytes."""
    return (
        f"{path.name} needs more than {memory / 2**30:.3g} GiB of memory to open; crop it or "
        "resample it first."
    )


class _Source(_Message):
    shape: _Shape
    affine: _Matrix
    code: int
    axes: tuple[_Axis, _Axis, _Axis]
    flips: tuple[bool, bool, bool]

    @model_validator(mode="after")
    def _a_permutation(self) -> Self:
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError("each axis must be there once")
        return self


def _file_text(path: Path) -> str:
    """A path as text that survives JSON: file names are bytes, not always of an encoding."""
    return quote_from_bytes(os.fsencode(path))


def _sendable(text: str) -> str:
    """Text without the bytes of a file name that are none, which cannot travel in JSON."""
    return text.encode(errors="replace").decode()


_Frame = tuple[Annotated[str, StringConstraints(max_length=12_000)], NonNegativeInt]
"""File, as `_file_text` writes it, and frame."""


class Header(_Message):
    """A `Volume` without its array, as it travels; the fields are those of `Volume`."""

    dtype: _Dtype
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=4)]
    grid_shape: _Shape
    affine: _Matrix
    known: bool
    name: _Text
    modality: _Text
    source: _Source | None
    window: tuple[FiniteFloat, FiniteFloat] | None
    inverted: bool
    warnings: Annotated[tuple[_Text, ...], Field(max_length=100)]
    frames: tuple[_Frame, ...]

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if self.nbytes > MAX_BYTES:
            raise ValueError("too large")
        if self.source is not None:
            columns_first = tuple(self.source.shape[axis] for axis in self.source.axes)
            if columns_first[::-1] != self.grid_shape:
                raise ValueError("the file's grid is another than the image's")
        if self.frames and (self.source is None or len(self.frames) != self.source.shape[2]):
            raise ValueError("not one frame a slice")
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @classmethod
    def of(cls, volume: Volume) -> Self:
        """Describe a volume whose dtype is one of `DTYPES`."""
        source = volume.source
        values = {
            "dtype": volume.array.dtype.name,
            "shape": volume.array.shape,
            "grid_shape": volume.grid.shape,
            "affine": volume.grid.affine.tolist(),
            "known": volume.grid.known,
            "source": source
            and {
                "shape": source.shape,
                "affine": source.affine.tolist(),
                "code": source.code,
                "axes": source.axes,
                "flips": source.flips,
            },
        }
        values["frames"] = [(_file_text(file), frame) for file, frame in volume.frames]
        same = ("modality", "window", "inverted", "warnings")
        values |= {field: getattr(volume, field) for field in same}
        return cls.model_validate(values | {"name": _sendable(volume.name)})

    def volume(self, array: NDArray[Any]) -> Volume:
        """Put the array back; raises ImageError when the two do not fit."""
        source = (
            None
            if self.source is None
            else SourceGrid(
                self.source.shape,
                np.array(self.source.affine),
                self.source.code,
                self.source.axes,
                self.source.flips,
            )
        )
        return Volume(
            array,
            Grid(self.grid_shape, np.array(self.affine), known=self.known),
            self.name,
            modality=self.modality,
            source=source,
            window=self.window,
            inverted=self.inverted,
            warnings=self.warnings,
            frames=tuple(
                SourceFrame(Path(os.fsdecode(unquote_to_bytes(file))), frame)
                for file, frame in self.frames
            ),
        )


_Side = Annotated[int, Field(ge=1, le=THUMBNAIL)]


class _Entry(_Message):
    """A `Part` without its number and its thumbnail, whose shape is `picture`."""

    description: _Text
    modality: _Text
    slices: NonNegativeInt
    problem: Annotated[str, StringConstraints(max_length=4000)]
    picture: tuple[_Side, _Side, Literal[3]] | None


class Listing(_Message):
    """Parts in their order, as they travel; their thumbnails follow."""

    parts: Annotated[tuple[_Entry, ...], Field(min_length=1, max_length=MAX_PARTS)]

    @property
    def nbytes(self) -> int:
        """Bytes of all thumbnails."""
        return sum(math.prod(entry.picture) for entry in self.parts if entry.picture)

    def parts_with(self, thumbnails: mmap | bytes) -> tuple[Part, ...]:
        """The parts with their numbers and thumbnails put back."""
        parts, used = [], 0
        for number, entry in enumerate(self.parts, 1):
            picture = None
            if entry.picture is not None:
                size = math.prod(entry.picture)
                flat = np.frombuffer(thumbnails, np.uint8, size, used)
                picture, used = flat.reshape(entry.picture), used + size
            named = entry.description, entry.modality, entry.slices, entry.problem
            parts.append(Part(number, *named, thumbnail=picture))
        return tuple(parts)

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Self:
        """Describe parts."""
        entries = [
            {
                "description": _sendable(part.description),
                "modality": part.modality,
                "slices": part.slices,
                "problem": _sendable(part.problem)[:4000],
                "picture": None if part.thumbnail is None else part.thumbnail.shape,
            }
            for part in parts
        ]
        return cls.model_validate({"parts": entries})
