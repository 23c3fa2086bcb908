"""An image on the grid of its own file, and the proof that a written file holds it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.orientation import corners
from napari_medreasoner.imaging.volume import Volume

__all__ = ["RGB", "TOLERANCE_MM", "FileImage", "check_same", "in_file_order"]

TOLERANCE_MM: Final = 1e-3
"""Farthest a voxel's centre may lie from where it should."""

RGB: Final = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
"""Type of colour voxels in file order."""


class FileImage(NamedTuple):
    """An image as a file holds it.

    Attributes
    ----------
    voxels : ndarray, shape (i, j, k)
        In the file's own order of axes; colour as `RGB`.
    affine : ndarray of float64, shape (4, 4)
        (i, j, k) to RAS millimetres.
    code : int
        NIfTI sform code of the source; 0 when it gave none, or there is no source.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    code: int


def in_file_order(shown: NDArray[Any], volume: Volume) -> FileImage:
    """Turn an array back to the axes of the file the image came from; voxels are only moved.

    Parameters
    ----------
    shown : ndarray, shape (slice, row, column) or (slice, row, column, 3)
        On the grid of `volume`, in display orientation.
    volume : Volume
        The image it belongs to.
    """
    if shown.ndim == 4:
        shown = np.ascontiguousarray(shown, np.uint8).view(RGB)[..., 0]
    source = volume.source
    if source is None:
        return FileImage(shown.transpose(2, 1, 0), volume.grid.affine, 0)
    return FileImage(source.restore(shown), source.affine, source.code)


def check_same(image: FileImage, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Compare an image with what was read back from the file written of it.

    Raises
    ------
    ExportError
        When a voxel differs, or a corner lies farther than `TOLERANCE_MM` from its place.
    """
    moved = np.abs(corners(image.voxels.shape) @ (affine - image.affine).T).max()
    floating = image.voxels.dtype.kind == "f"
    same = np.array_equal(voxels, image.voxels, equal_nan=floating)
    if not same or not moved <= TOLERANCE_MM:
        raise ExportError("The file read back differs from the one written; nothing was saved.")
