"""What the child may answer: types, sizes and geometry, each checked again by the parent."""

from __future__ import annotations

import math
import os
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
from napari_medreasoner.imaging.volume import SourceFrame, SourceGrid, Volume

__all__ = ["DTYPES", "Failure", "Header"]

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
        # A file name may hold bytes that are no text; they cannot travel in JSON.
        return cls.model_validate(values | {"name": volume.name.encode(errors="replace").decode()})

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
