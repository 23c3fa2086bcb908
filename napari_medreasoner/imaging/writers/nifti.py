"""Masks and images out as NIfTI, on the grid they came from."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.orientation import corners
from napari_medreasoner.imaging.writers.atomic import replace_atomically
from napari_medreasoner.imaging.writers.file_grid import TOLERANCE_MM, FileImage, check_same

__all__ = ["write_nifti"]

_SCANNER: Final = 1
_LONGEST: Final = 2**15 - 1
"""Most voxels along an axis that NIfTI-1 counts; longer images become NIfTI-2."""


def write_nifti(path: Path, image: FileImage) -> None:
    """Write an image as NIfTI.

    sform and qform are equal and carry the code of the source (1, scanner, when it had
    none). The qform is marked as not set where its quaternion of 32-bit numbers would put a
    voxel more than 1e-3 mm elsewhere: sheared axes, and turns by almost 180 degrees. RGB
    becomes NIfTI's RGB24. The file is NIfTI-1, or NIfTI-2 where an axis is too long for that.

    The file is written beside the target, read back and compared in millimetres, and only
    then put in its place, so that a failure leaves the old file as it was.

    Parameters
    ----------
    path : Path
        Ends in ".nii.gz" or ".nii".
    image : FileImage
        In file order.

    Raises
    ------
    ExportError
        When NIfTI has no such element type, or writing fails.
    """
    voxels, affine, code = image
    try:
        # Naming the type allows 64-bit integers, which nibabel otherwise refuses.
        kind: Any = nib.Nifti1Image if max(voxels.shape) <= _LONGEST else nib.Nifti2Image
        nifti = kind(voxels, affine, dtype=voxels.dtype)
    except nib.spatialimages.HeaderDataError as error:
        raise ExportError(f"NIfTI cannot hold elements of type {voxels.dtype}.") from error
    nifti.set_sform(affine, code or _SCANNER)
    nifti.set_qform(affine, code or _SCANNER)
    ends = corners(voxels.shape)
    if np.linalg.norm(ends @ (nifti.get_qform() - affine).T, axis=1).max() > TOLERANCE_MM:
        nifti.set_qform(None, 0)
    nifti.header.set_xyzt_units("mm")
    # nibabel's own writer leaves its file open when the disk is full.
    data = nifti.to_bytes()
    with replace_atomically(path) as temporary:
        temporary.write_bytes(gzip.compress(data, 6) if path.suffix == ".gz" else data)
        back: Any = nib.load(temporary)
        check_same(image, np.asanyarray(back.dataobj), back.affine)
