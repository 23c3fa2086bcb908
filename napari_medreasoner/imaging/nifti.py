"""NIfTI in, turned to display orientation; masks out, on the grid they came from."""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ExportError, ImageError, ReadError
from napari_medreasoner.imaging.atomic import replace_atomically
from napari_medreasoner.imaging.limits import check_nifti, unpack
from napari_medreasoner.imaging.orientation import displayed
from napari_medreasoner.imaging.volume import Volume, display_name

__all__ = ["read_nifti", "write_image", "write_mask"]

# nibabel writes what it finds odd in a header to stderr; what matters of it is a ReadError here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)

_TOLERANCE_MM: Final = 1e-3
_SCANNER: Final = 1
_NIFTI2_BYTES: Final = (540).to_bytes(4)
_FORMS_APART_MM: Final = 0.1
_MILLIMETRES: Final = {"meter": 1000.0, "micron": 0.001}
"""Per spatial unit of the header; files that name none mean millimetres."""

_RGB: Final = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A file as it is: intensities, affine in mm, the affine's code, and what is odd."""

    array: NDArray[Any]
    affine: NDArray[np.float64]
    code: int
    warnings: tuple[str, ...]


def _pick_affine(image: Any) -> tuple[NDArray[np.float64], int]:
    """The sform when its code is set, else qform, else the header's pixel sizes with code 0."""
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        if code > 0:
            return affine, int(code)
    return image.header.get_base_affine(), 0


def _corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Homogeneous indices of the eight corner voxels, shape (8, 4)."""
    ends = [(0, size - 1) for size in shape[:3]]
    return np.array(list(product(*ends, (1,))), dtype=np.float64)


def _geometry_warnings(image: Any, millimetres: float) -> tuple[str, ...]:
    """What the user should know about the header's two ways of saying where the image is."""
    (sform, s_code), (qform, q_code) = image.get_sform(coded=True), image.get_qform(coded=True)
    if s_code == q_code == 0:
        return ("The file does not say where the image lies; one step a voxel is assumed.",)
    if s_code == 0 or q_code == 0 or len(image.shape) < 3:
        return ()
    apart = np.abs(_corners(image.shape) @ (sform - qform).T).max() * millimetres
    if apart <= _FORMS_APART_MM:
        return ()
    return (f"The sform and qform of the file differ by {apart:.1f} mm; the sform was taken.",)


def _from_bytes(data: bytes) -> Any:
    """Image in memory; the header begins with its length, in either byte order."""
    wide = data[:4] in (_NIFTI2_BYTES, _NIFTI2_BYTES[::-1])
    return (nib.Nifti2Image if wide else nib.Nifti1Image).from_bytes(data)


def _load(path: Path) -> _Loaded:
    size = check_nifti(path)
    data = unpack(path, size) if path.name.lower().endswith(".gz") else None
    try:
        image: Any = nib.load(path) if data is None else _from_bytes(data)
        unit = image.header.get_xyzt_units()[0]
        factor = _MILLIMETRES.get(unit, 1.0)
        warnings = _geometry_warnings(image, factor)
        affine, code = _pick_affine(image)
        scaled = np.diag([factor, factor, factor, 1.0]) @ affine
        return _Loaded(np.asanyarray(image.dataobj), scaled, code, warnings)
    except Exception as error:
        # nibabel raises a dozen unrelated types on damaged files; each is the same to the user.
        raise ReadError(
            f"{path.name} cannot be read as NIfTI ({type(error).__name__}); the file is damaged "
            "or of another kind."
        ) from error


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
    """Read a NIfTI file; see `displayed` for how it is turned.

    Raises
    ------
    ReadError
        When the file is damaged, not 3D, or its geometry cannot be used.
    """
    loaded = _load(path)
    array = _spatial(loaded.array, path)
    try:
        turned = displayed(array, loaded.affine, code=loaded.code, name=display_name(path))
        return replace(turned, warnings=loaded.warnings)
    except ImageError as error:
        raise ReadError(
            f"{path.name} has a geometry that cannot be used; repair its header."
        ) from error


def _verify(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Read a written file back; it must hold the same voxels in the same place."""
    back: Any = nib.load(path)
    moved = np.abs(_corners(voxels.shape) @ (back.affine - affine).T).max()
    same = np.array_equal(np.asanyarray(back.dataobj), voxels, equal_nan=voxels.dtype.kind == "f")
    if not same or moved > _TOLERANCE_MM:
        raise ExportError("The file read back differs from the one written; nothing was saved.")


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
    shown = mask[None] if mask.ndim == 2 else mask
    if shown.shape != volume.grid.shape:
        raise ExportError(
            f"The mask has the shape {mask.shape}, the image {volume.grid.shape}; segment again."
        )
    _write(path, shown.astype(np.uint8), volume)


def write_image(path: Path, volume: Volume) -> None:
    """Write the image itself as NIfTI, in the axes and on the grid of the file it came from.

    As careful as `write_mask`; intensities and element type stay as they are, RGB becomes
    NIfTI's RGB24.

    Raises
    ------
    ExportError
        When the name has another suffix, NIfTI has no such element type, or writing fails.
    """
    array = volume.array
    _write(path, array if volume.is_volume else array[None], volume)


def _write(path: Path, shown: NDArray[Any], volume: Volume) -> None:
    """Write an array of shape (slice, row, column[, 3]) where the image came from."""
    if not path.name.endswith((".nii.gz", ".nii")):
        raise ExportError(f'"{path.name}" must end in .nii.gz or .nii; choose such a name.')
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
