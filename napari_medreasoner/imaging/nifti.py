"""NIfTI in, turned to display orientation; masks out, on the grid they came from."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ExportError, ImageError, ReadError
from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging.atomic import replace_atomically
from napari_medreasoner.imaging.volume import SourceGrid, Volume, display_name

__all__ = ["read_nifti", "write_mask"]

# nibabel writes what it finds odd in a header to stderr; what matters of it is a ReadError here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)

MAX_VOXELS: Final = 2**30
"""Largest image read: claimed size is checked before anything is allocated."""

_T = TypeVar("_T")
_TOLERANCE_MM: Final = 1e-3
_SCANNER: Final = 1


def _pick_affine(image: Any) -> tuple[NDArray[np.float64], int]:
    """The sform when its code is set, else qform, else the header's pixel sizes with code 0."""
    sform, code = image.get_sform(coded=True)
    if code > 0:
        return sform, int(code)
    qform, code = image.get_qform(coded=True)
    if code > 0:
        return qform, int(code)
    return image.header.get_base_affine(), 0


def _unit_factor(image: Any) -> float:
    """Millimetres per spatial unit of the header."""
    return {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)


def _load(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """Intensities in file order, affine in mm, and its code."""
    try:
        image: Any = nib.load(path)
        if math.prod(image.shape) > MAX_VOXELS:
            raise ReadError(f"{path.name} claims {image.shape} voxels; that is more than is read.")
        array = np.asanyarray(image.dataobj)
        affine, code = _pick_affine(image)
        factor = np.diag([_unit_factor(image)] * 3 + [1.0])
    except ReadError:
        raise
    except Exception as error:
        # nibabel raises a dozen unrelated types on damaged files; each is the same to the user.
        raise ReadError(
            f"{path.name} cannot be read as NIfTI ({type(error).__name__}); the file is damaged "
            "or of another kind."
        ) from error
    return array, factor @ affine, code


def _spatial(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """(i, j, k) or (i, j, k, 3); NIfTI's RGB is a structured type."""
    if array.dtype.names == ("R", "G", "B"):
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
        return array if array.ndim == 4 else array[:, :, None]
    if array.ndim == 2:
        array = array[:, :, None]
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise ReadError(
            f"{path.name} has the shape {array.shape}; choose one volume of it and save that."
        )
    return array


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file.

    The voxels are permuted and flipped, never resampled, to display the radiological way;
    `Volume.source` undoes it. A volume of one slice becomes a 2D image.

    Raises
    ------
    ReadError
        When the file is damaged, not 3D, or its geometry cannot be used.
    """
    loaded, affine, code = _load(path)
    array = _spatial(loaded, path)
    try:
        Grid((1, 1, 1), affine)
        orientation = io_orientation(affine)
        if not np.isfinite(orientation).all():
            raise ImageError("An axis of the image has no direction.")
    except (ImageError, ValueError, np.linalg.LinAlgError) as error:
        raise ReadError(
            f"{path.name} has a geometry that cannot be used; repair its header."
        ) from error
    axes = _three([int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in range(3)])
    # From RAS to the displayed Left, Posterior, Superior two world axes run backwards.
    wanted = zip(axes, (-1, -1, 1), strict=True)
    flips = _three([bool(orientation[axis, 1] != direction) for axis, direction in wanted])
    source = SourceGrid(_three(array.shape), affine, code, axes, flips)
    columns_first: NDArray[Any] = array.transpose(*axes, *range(3, array.ndim))
    turned = np.flip(columns_first, tuple(axis for axis in range(3) if flips[axis]))
    shown = np.ascontiguousarray(turned.swapaxes(0, 2))
    grid = Grid(_three(shown.shape), _displayed_affine(source), known=code > 0)
    return Volume(shown[0] if shown.shape[0] == 1 else shown, grid, display_name(path), "", source)


def _three(values: Sequence[_T]) -> tuple[_T, _T, _T]:
    first, second, third = values[:3]
    return first, second, third


def _displayed_affine(source: SourceGrid) -> NDArray[np.float64]:
    """Displayed voxel index (column, row, slice) to RAS millimetres."""
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1.0
    for shown, (axis, flip) in enumerate(zip(source.axes, source.flips, strict=True)):
        to_file[axis, shown] = -1.0 if flip else 1.0
        to_file[axis, 3] = source.shape[axis] - 1 if flip else 0.0
    return source.affine @ to_file


def _verify(path: Path, voxels: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Read a written file back; it must hold the same voxels in the same place."""
    back: Any = nib.load(path)
    far = np.array(voxels.shape) - 1
    corners = np.array(
        [(i, j, k, 1) for i in (0, far[0]) for j in (0, far[1]) for k in (0, far[2])]
    )
    moved = np.abs(corners @ (back.affine - affine).T).max()
    if not np.array_equal(np.asanyarray(back.dataobj), voxels) or moved > _TOLERANCE_MM:
        raise ExportError("The mask read back differs from the one written; nothing was saved.")


def write_mask(path: Path, mask: NDArray[np.bool_], volume: Volume) -> None:
    """Write a mask as NIfTI on the grid of the file the image came from.

    sform and qform are equal and carry the code of the source (1, scanner, when it had
    none). The file is written beside the target, read back and compared in millimetres, and
    only then put in its place, so that a failure leaves the old file as it was.

    Parameters
    ----------
    path : Path
        Ends in ".nii.gz" or ".nii".
    mask : ndarray of bool
        Shape of the spatial axes of `volume.array`.
    volume : Volume
        The image the mask belongs to.

    Raises
    ------
    ExportError
        When the mask does not fit, the name has another suffix, or writing fails.
    """
    if not path.name.endswith((".nii.gz", ".nii")):
        raise ExportError(f'"{path.name}" must end in .nii.gz or .nii; choose such a name.')
    displayed = mask[None] if mask.ndim == 2 else mask
    if displayed.shape != volume.grid.shape:
        raise ExportError(
            f"The mask has the shape {mask.shape}, the image {volume.grid.shape}; segment again."
        )
    voxels, affine, code = _on_file_grid(displayed.astype(np.uint8), volume)
    image: Any = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    # nibabel's own writer leaves its file open when the disk is full.
    data = image.to_bytes()
    with replace_atomically(path) as temporary:
        temporary.write_bytes(gzip.compress(data, 6) if path.suffix == ".gz" else data)
        _verify(temporary, voxels, affine)


def _on_file_grid(
    displayed: NDArray[np.uint8], volume: Volume
) -> tuple[NDArray[np.uint8], NDArray[np.float64], int]:
    """Voxels in file order, the file's affine, and the code both forms get."""
    source = volume.source
    if source is None:
        return displayed.transpose(2, 1, 0), volume.grid.affine, _SCANNER
    return source.restore(displayed), source.affine, source.code or _SCANNER
