"""Which files are of which kind: suffixes, and the mark of DICOM. Imports no decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

__all__ = ["DETACHED", "DICOM", "ITK", "NIFTI", "RASTER", "READABLE", "Kind", "is_dicom", "kind_of"]

NIFTI: Final = (".nii", ".nii.gz")
RASTER: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ITK: Final = (".nrrd", ".mha", ".mhd")
"""A ".mhd" is read like a ".mha": only when it holds its own voxels."""

DETACHED: Final = (".nhdr",)
"""Headers whose voxels always lie in another file: refused."""

DICOM: Final = (".dcm", ".dicom", ".ima")
READABLE: Final = (*NIFTI, *RASTER, *ITK, *DICOM)
"""Suffixes that are read; a DICOM file may have any, and a folder may hold a series."""

Kind = Literal["nifti", "raster", "itk", "dicom"]

_MARK: Final = b"DICM"
_MARK_AT: Final = 128  # PS3.10, section 7.1


def is_dicom(path: Path) -> bool:
    """Whether a file carries the mark of DICOM; False when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError:
        return False


def kind_of(path: Path) -> Kind | None:
    """Kind of a file by its name, else by the mark of DICOM; None when it is none of ours."""
    name = path.name.lower()
    kinds: dict[Kind, tuple[str, ...]] = {
        "nifti": NIFTI,
        "raster": RASTER,
        "itk": (*ITK, *DETACHED),
        "dicom": DICOM,
    }
    named = (kind for kind, suffixes in kinds.items() if name.endswith(suffixes))
    return next(named, "dicom" if is_dicom(path) else None)
