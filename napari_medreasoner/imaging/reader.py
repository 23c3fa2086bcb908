"""One way in for every file: by suffix, to the reader that knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.nifti import read_nifti
from napari_medreasoner.imaging.raster import RASTER_SUFFIXES, read_raster
from napari_medreasoner.imaging.volume import Volume

__all__ = ["READABLE", "read_image"]

_NIFTI: Final = (".nii", ".nii.gz")
READABLE: Final = (*_NIFTI, *RASTER_SUFFIXES)
"""Suffixes that `read_image` takes."""


def read_image(path: Path) -> Volume:
    """Read an image file.

    Raises
    ------
    ReadError
        When there is no such file, its suffix is not one of `READABLE`, or its reader
        refuses it.
    """
    if not path.is_file():
        raise ReadError(f"There is no file {path}; check the path.")
    name = path.name.lower()
    if name.endswith(_NIFTI):
        return read_nifti(path)
    if name.endswith(RASTER_SUFFIXES):
        return read_raster(path)
    raise ReadError(f"{path.name} is of a kind that is not read; use one of {', '.join(READABLE)}.")
