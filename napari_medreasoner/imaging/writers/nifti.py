"""Masks and images out as NIfTI, on the grid they came from."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.orientation import corners
from napari_medreasoner.imaging.volume import Volume
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = ["write_nifti"]

_TOLERANCE_MM: Final = 1e-3
_SCANNER: Final = 1
_RGB: Final = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def _verify(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Read a written file back; it must hold the same voxels in the same place."""
    back: Any = nib.load(path)
    moved = np.abs(corners(voxels.shape) @ (back.affine - affine).T).max()
    same = np.array_equal(np.asanyarray(back.dataobj), voxels, equal_nan=voxels.dtype.kind == "f")
    if not same or moved > _TOLERANCE_MM:
        raise ExportError("The file read back differs from the one written; nothing was saved.")


def write_nifti(path: Path, shown: NDArray[Any], volume: Volume) -> None:
    """Write an array as NIfTI on the grid of the file the image came from.

    sform and qform are equal and carry the code of the source (1, scanner, when it had
    none). The file is written beside the target, read back and compared in millimetres, and
    only then put in its place, so that a failure leaves the old file as it was. RGB becomes
    NIfTI's RGB24.

    Parameters
    ----------
    path : Path
        Ends in ".nii.gz" or ".nii".
    shown : ndarray, shape (slice, row, column) or (slice, row, column, 3)
        On the grid of `volume`, in display orientation.
    volume : Volume
        The image it belongs to.

    Raises
    ------
    ExportError
        When NIfTI has no such element type, or writing fails.
    """
    voxels, affine, code = _on_file_grid(shown, volume)
    try:
        image: Any = nib.Nifti1Image(voxels, affine)
    except nib.spatialimages.HeaderDataError as error:
        raise ExportError(f"NIfTI cannot hold elements of type {shown.dtype}.") from error
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    # nibabel's own writer leaves its file open when the disk is full.
    data = image.to_bytes()
    with replace_atomically(path) as temporary:
        temporary.write_bytes(gzip.compress(data, 6) if path.suffix == ".gz" else data)
        _verify(temporary, voxels, affine)


def _on_file_grid(
    shown: NDArray[Any], volume: Volume
) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """Voxels in file order, the file's affine, and the code both forms get."""
    if shown.ndim == 4:
        shown = np.ascontiguousarray(shown, np.uint8).view(_RGB)[..., 0]
    source = volume.source
    if source is None:
        return shown.transpose(2, 1, 0), volume.grid.affine, _SCANNER
    return source.restore(shown), source.affine, source.code or _SCANNER
