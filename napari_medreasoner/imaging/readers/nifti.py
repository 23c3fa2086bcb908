"""NIfTI in, turned to display orientation."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.imaging.orientation import corners, displayed
from napari_medreasoner.imaging.readers.limits import check_nifti, unpack
from napari_medreasoner.imaging.volume import Volume, display_name

__all__ = ["read_nifti"]

# nibabel writes what it finds odd in a header to stderr; what matters of it is a ReadError here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)

_NIFTI2_BYTES: Final = (540).to_bytes(4)
_FORMS_APART_MM: Final = 0.1
_MILLIMETRES: Final = {"meter": 1000.0, "micron": 0.001}
"""Per spatial unit of the header; files that name none mean millimetres."""


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


def _geometry_warnings(image: Any, millimetres: float) -> tuple[str, ...]:
    """What the user should know about the header's two ways of saying where the image is."""
    (sform, s_code), (qform, q_code) = image.get_sform(coded=True), image.get_qform(coded=True)
    if s_code == q_code == 0:
        return ("The file does not say where the image lies; one step a voxel is assumed.",)
    if s_code == 0 or q_code == 0 or len(image.shape) < 3:
        return ()
    apart = np.abs(corners(image.shape) @ (sform - qform).T).max() * millimetres
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
