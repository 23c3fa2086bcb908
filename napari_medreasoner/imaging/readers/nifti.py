"""NIfTI in, turned to display orientation; one volume of a file that holds several."""

from __future__ import annotations

import logging
import math
import mmap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.imaging.orientation import corners, displayed
from napari_medreasoner.imaging.readers.limits import unpack
from napari_medreasoner.imaging.readers.nifti_header import checked_header
from napari_medreasoner.imaging.volume import Volume, display_name

__all__ = ["NiftiFile", "open_nifti", "read_nifti"]

# nibabel writes what it finds odd in a header to stderr; what matters of it is a ReadError here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)

_FORMS_APART_MM: Final = 0.1
_MILLIMETRES: Final = {"meter": 1000.0, "micron": 0.001}
"""Per spatial unit of the header; files that name none mean millimetres."""


@dataclass(frozen=True, slots=True)
class NiftiFile:
    """A file whose voxels are read when they are looked at.

    Attributes
    ----------
    path : Path
        Where it lies.
    stored : ndarray, shape (i, j, k, volume)
        As in the file, before slope and intercept; RGB is a structured type.
    scaling : (float or None, float or None)
        Slope and intercept.
    affine : ndarray of float64, shape (4, 4)
        Index (i, j, k) to RAS mm.
    code : int
        Of the affine; 0 when it is assumed.
    warnings : tuple of str
        What is odd, a sentence each.
    """

    path: Path
    stored: NDArray[Any]
    scaling: tuple[float | None, float | None]
    affine: NDArray[np.float64]
    code: int
    warnings: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of volumes."""
        return int(self.stored.shape[3])

    def turned(self, number: int) -> Volume:
        """One volume, from 1, turned by `displayed` but not yet `scaled`; nothing is read."""
        voxels = self.stored[..., number - 1]
        if voxels.dtype.names is not None:
            bytes_last = voxels.T.view(np.uint8).reshape(*voxels.T.shape, 3)
            voxels = bytes_last.transpose(2, 1, 0, 3)
        name = display_name(self.path)
        try:
            volume = displayed(voxels, self.affine, code=self.code, name=name)
        except ImageError as error:
            raise ReadError(
                f"{self.path.name} has a geometry that cannot be used; repair its header."
            ) from error
        return replace(volume, warnings=self.warnings + volume.warnings)

    def scaled(self, volume: Volume) -> Volume:
        """A volume that `turned` gave, or a cut of it, in the intensities it stands for."""
        return replace(volume, array=apply_read_scaling(volume.array, *self.scaling))


def _pick_affine(header: Any) -> tuple[NDArray[np.float64], int]:
    """The sform when its code is set, else qform, else the header's pixel sizes with code 0."""
    for affine, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        if code > 0:
            return affine, int(code)
    return header.get_base_affine(), 0


def _geometry_warnings(header: Any, millimetres: float) -> tuple[str, ...]:
    """What the user should know about the header's two ways of saying where the image is."""
    (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    shape = header.get_data_shape()
    if s_code == q_code == 0:
        return ("The file does not say where the image lies; one step a voxel is assumed.",)
    if s_code == 0 or q_code == 0 or len(shape) < 3:
        return ()
    apart = np.abs(corners(shape) @ (sform - qform).T).max() * millimetres
    if apart <= _FORMS_APART_MM:
        return ()
    return (f"The sform and qform of the file differ by {apart:.1f} mm; the sform was taken.",)


def _content(path: Path, size: int) -> bytes | mmap.mmap:
    """The file as one buffer: unpacked and compared with its checksum, or mapped."""
    if path.name.lower().endswith(".gz"):
        return unpack(path, size)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_nifti(path: Path) -> NiftiFile:
    """Look into a NIfTI file; only a compressed one is read as a whole.

    Raises
    ------
    ReadError
        When the file is damaged.
    """
    header, size = checked_header(path)
    content = _content(path, size)
    try:
        header.check_fix()
        factor = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
        affine, code = _pick_affine(header)
        shape = (*header.get_data_shape(), 1, 1)
        stored: NDArray[Any] = np.ndarray(
            (*shape[:3], math.prod(shape[3:])),
            header.get_data_dtype(),
            content,
            header.get_data_offset(),
            order="F",
        )
        return NiftiFile(
            path,
            stored,
            header.get_slope_inter(),
            np.diag([factor, factor, factor, 1.0]) @ affine,
            code,
            _geometry_warnings(header, factor),
        )
    except Exception as error:
        # nibabel raises a dozen unrelated types on damaged files; each is the same to the user.
        raise ReadError(
            f"{path.name} cannot be read as NIfTI ({type(error).__name__}); the file is damaged "
            "or of another kind."
        ) from error


def read_nifti(path: Path, part: int | None = None) -> Volume:
    """Read one volume of a NIfTI file; see `displayed` for how it is turned.

    Parameters
    ----------
    path : Path
        Ends in ".nii" or ".nii.gz".
    part : int, optional
        Which volume of a file that holds several (4D), from 1.

    Raises
    ------
    ReadError
        When the file is damaged, holds several volumes or not this one, or its geometry cannot
        be used.
    """
    file = open_nifti(path)
    if part is None and file.count > 1:
        raise ReadError(
            f"{path.name} holds {file.count} volumes; choose one by its number, from 1."
        )
    number = 1 if part is None else part
    if not 1 <= number <= file.count:
        raise ReadError(f"{path.name} has volumes 1 to {file.count}, no {number}.")
    return file.scaled(file.turned(number))
