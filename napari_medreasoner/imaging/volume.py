"""An image in memory: intensities, where they lie in the patient, and the file's own grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Grid

__all__ = ["SourceFrame", "SourceGrid", "Volume", "display_name", "plain_grid"]


class SourceFrame(NamedTuple):
    """The DICOM file, and the frame in it from 0, that one slice was read from.

    Paths can name a patient: they are never sent to a server, logged or reported.
    """

    file: Path
    frame: int


@dataclass(frozen=True, slots=True)
class SourceGrid:
    """The grid of the file an image came from, so that a mask can go back onto it.

    Attributes
    ----------
    shape : tuple of int
        Spatial shape in file order (column, row, slice of the file's own axes).
    affine : ndarray of float64, shape (4, 4)
        File voxel index to RAS millimetres.
    code : int
        NIfTI sform code the affine came with.
    axes : tuple of int
        For each axis of the displayed (column, row, slice) grid, the file axis it is.
    flips : tuple of bool
        For each axis of the displayed grid, whether it runs against the file axis.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    code: int
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def restore(self, displayed: NDArray[Any]) -> NDArray[Any]:
        """Turn an array of shape (slice, row, column) back into file order.

        The voxels are moved, never resampled, so this is exact.
        """
        reversed_axes = tuple(axis for axis in range(3) if self.flips[axis])
        columns_first: NDArray[Any] = np.flip(displayed.transpose(2, 1, 0), reversed_axes)
        first, second, third = np.argsort(self.axes)
        return columns_first.transpose(first, second, third)


@dataclass(frozen=True, slots=True)
class Volume:
    """One image, turned so that it displays the radiological way.

    Axes of a volume run towards the patient's Superior (slice), Posterior (row) and Left
    (column), as near as the acquisition allows.

    Attributes
    ----------
    array : ndarray
        (row, column) or (row, column, 3) for a 2D image; (slice, row, column) or
        (slice, row, column, 3) for a volume. Stored intensities after rescale.
    grid : Grid
        Of the spatial axes of `array`; a 2D image is one slice.
    name : str
        File name or title for the user; not sent to a server.
    modality : str
        As in "CT"; empty when not known.
    source : SourceGrid or None
        None when the array is already in the file's order, or came from no file.
    window : (float, float) or None
        Intensities the file itself asks to be shown as black and as white (DICOM VOI LUT).
    inverted : bool
        High values are meant to be shown dark (MONOCHROME1); the array is as stored.
    warnings : tuple of str
        What the user should know about how the file was read; one sentence each.
    frames : tuple of SourceFrame
        For each slice of the grid of `source`, where it came from; empty when not from DICOM.
    """

    array: NDArray[Any]
    grid: Grid
    name: str
    modality: str = ""
    source: SourceGrid | None = field(default=None, repr=False)
    window: tuple[float, float] | None = None
    inverted: bool = False
    warnings: tuple[str, ...] = ()
    frames: tuple[SourceFrame, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Refuse an array whose shape is not one of the four, or not the grid's."""
        slices, rows, columns = self.grid.shape
        shapes = [(slices, rows, columns), (slices, rows, columns, 3)]
        if slices == 1:
            shapes += [(rows, columns), (rows, columns, 3)]
        if self.array.shape not in shapes:
            raise ImageError(
                f"The image has the shape {self.array.shape}; a 2D image or one volume, grey or "
                "RGB, is needed."
            )

    @property
    def is_volume(self) -> bool:
        """Whether there are slices to choose from."""
        return self.array.shape[:3] == self.grid.shape

    @property
    def is_rgb(self) -> bool:
        """Whether the last axis is colour."""
        return self.array.ndim == (4 if self.is_volume else 3)


def plain_grid(shape: tuple[int, ...]) -> Grid:
    """Grid of an image without geometry: one millimetre a pixel, shown as it is stored.

    Parameters
    ----------
    shape : tuple of int
        (row, column) or (slice, row, column).
    """
    slices, rows, columns = (1, *shape)[-3:]
    return Grid((slices, rows, columns), np.diag([-1.0, -1.0, 1.0, 1.0]), known=False)


def display_name(path: Path) -> str:
    """File name without its image suffixes."""
    return path.name.removesuffix(".gz").removesuffix(".nii") or path.name
