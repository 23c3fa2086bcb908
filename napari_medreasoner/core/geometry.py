"""Boxes, points, slices and the way from pixels to patient millimetres.

Conventions used everywhere in the project:

* Arrays are (row, column) in 2D and (slice, row, column) in 3D, an optional last
  axis of length 3 being RGB.
* Pixel space: x is the column, y the row, whole numbers. Pixel (x, y) is the cell
  [x, x+1) x [y, y+1) when boxes are meant, so a box is **max-exclusive**; a point is the
  index of a pixel, whose centre it denotes.
* Patient space: millimetres growing towards the patient's Right, Anterior and Superior
  (RAS), as in NIfTI. `Grid.affine` maps a voxel index in the order (column, row, slice) to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_medreasoner.core.errors import ImageError, PromptError

__all__ = ["Box", "Corners", "Grid", "Pair", "Point", "Prompts", "SlicePlane"]

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 of a box that need not lie on whole pixels."""

Pair = tuple[tuple[float, float], tuple[float, float]]
"""(x, y) of two points that need not lie on whole pixels."""

_Pixel = Annotated[int, Field(ge=-(2**31), lt=2**31)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Point(_Frozen):
    """A click on a pixel.

    Attributes
    ----------
    x, y : int
        Column and row of the pixel.
    positive : bool
        True: the target covers this pixel. False: it does not.
    """

    x: _Pixel
    y: _Pixel
    positive: bool = True


class Box(_Frozen):
    """An axis-aligned box of whole pixels, max-exclusive: columns x1..x2-1, rows y1..y2-1.

    Raises
    ------
    ValueError
        When the box is empty (x2 <= x1 or y2 <= y1).
    """

    x1: _Pixel
    y1: _Pixel
    x2: _Pixel
    y2: _Pixel

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.x2 <= self.x1 or self.y2 <= self.y1:
            raise ValueError("a box needs x2 > x1 and y2 > y1")
        return self

    @classmethod
    def from_corners(cls, x1: int, y1: int, x2: int, y2: int) -> Self:
        """Build a box from four whole numbers."""
        return cls(x1=x1, y1=y1, x2=x2, y2=y2)

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.y2 - self.y1

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices that cut the box out of an image (after `clipped`)."""
        return slice(self.y1, self.y2), slice(self.x1, self.x2)

    def padded(self, pixels: int) -> Box:
        """Return the box grown by a margin on all four sides; it may leave the image."""
        return Box(
            x1=self.x1 - pixels, y1=self.y1 - pixels, x2=self.x2 + pixels, y2=self.y2 + pixels
        )

    def clipped(self, width: int, height: int) -> Box:
        """Return the part of the box inside an image.

        Raises
        ------
        PromptError
            When nothing of it is inside.
        """
        x1, y1 = max(self.x1, 0), max(self.y1, 0)
        x2, y2 = min(self.x2, width), min(self.y2, height)
        if x2 <= x1 or y2 <= y1:
            raise PromptError(
                f"The box {list(self.corners)} lies outside the image of {width} x {height} "
                "pixels; draw it over the image."
            )
        return Box(x1=x1, y1=y1, x2=x2, y2=y2)


class Prompts(_Frozen):
    """What the segmenter is told about the target: a box, points, or both."""

    box: Box | None = None
    points: tuple[Point, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing says where the target is (negative points alone do not)."""
        return self.box is None and not any(point.positive for point in self.points)

    def clipped(self, width: int, height: int) -> Prompts:
        """Return the prompts with the box clipped to an image.

        Raises
        ------
        PromptError
            When there is no box and no positive point, the box is wholly outside, or a
            point is.
        """
        if self.is_empty:
            raise PromptError(
                "There is no box and no positive point; draw a box or click on the target."
            )
        for point in self.points:
            if not (0 <= point.x < width and 0 <= point.y < height):
                raise PromptError(
                    f"The point ({point.x}, {point.y}) lies outside the image of {width} x "
                    f"{height} pixels; move it onto the image or delete it."
                )
        box = self.box.clipped(width, height) if self.box else None
        return Prompts(box=box, points=self.points)


class SlicePlane(_Frozen):
    """One slice of a volume: everything with `index` along array axis `axis`.

    Rows and columns of the slice are the two remaining axes in array order, so an axial
    slice (axis 0) has rows = y and columns = x.
    """

    axis: Annotated[int, Field(ge=0, le=2)] = 0
    index: Annotated[int, Field(ge=0)]

    def selector(self, shape: tuple[int, ...]) -> tuple[slice | int, ...]:
        """Index expression that cuts the slice out of an array of this shape.

        Raises
        ------
        ImageError
            When the array is not a volume or has no such slice.
        """
        if len(shape) < 3:
            raise ImageError("The image has no slices; it is two-dimensional.")
        if self.index >= shape[self.axis]:
            raise ImageError(
                f"Slice {self.index} does not exist: the volume has {shape[self.axis]} slices "
                f"along axis {self.axis}."
            )
        return tuple(self.index if axis == self.axis else slice(None) for axis in range(3))

    def cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return the slice of a volume of shape (slice, row, column[, 3]), as a view."""
        view: NDArray[Any] = volume[self.selector(volume.shape)]
        return view


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the voxels of an array lie in the patient.

    Attributes
    ----------
    shape : tuple of int
        (slice, row, column); a 2D image is one slice.
    affine : ndarray of float64, shape (4, 4)
        Voxel index (column, row, slice) to RAS millimetres.
    known : bool
        False when the file gave no geometry and one millimetre a pixel is assumed, so that
        measures may only be stated in pixels.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    known: bool = True

    def __post_init__(self) -> None:
        """Refuse an affine that cannot place a voxel.

        Raises
        ------
        ImageError
            When the affine is not a finite, invertible 4 x 4 matrix.
        """
        matrix = np.asarray(self.affine)
        usable = matrix.shape == (4, 4) and bool(np.isfinite(matrix).all())
        if not usable or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise ImageError(
                "The image's geometry cannot be used (affine not finite or not invertible); "
                "repair its header or open it without geometry."
            )

    @property
    def affine_lps(self) -> NDArray[np.float64]:
        """The affine in DICOM's patient space, towards Left, Posterior and Superior."""
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along (slice, row, column)."""
        column, row, slice_ = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_), float(row), float(column)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_patient(self, plane: SlicePlane, x: float, y: float) -> tuple[float, float, float]:
        """RAS millimetres of the centre of pixel (x, y) of a slice."""
        position = [y, x]
        position.insert(plane.axis, plane.index)
        slice_, row, column = position
        right, anterior, superior, _ = self.affine @ (column, row, slice_, 1.0)
        return float(right), float(anterior), float(superior)

    def to_pixel(
        self, axis: int, right: float, anterior: float, superior: float
    ) -> tuple[float, float, float]:
        """Pixel and slice of a place in the patient: the inverse of `to_patient`.

        Returns
        -------
        tuple of float
            (x, y, index along `axis`), not rounded.
        """
        column, row, slice_, _ = np.linalg.inv(self.affine) @ (right, anterior, superior, 1.0)
        position = [float(slice_), float(row), float(column)]
        index = position.pop(axis)
        return position[1], position[0], index
