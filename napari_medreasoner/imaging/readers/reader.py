"""One way in for every file: by its name or first bytes, to the reader that knows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.kinds import READABLE, is_dicom, kind_of
from napari_medreasoner.imaging.volume import Volume

if TYPE_CHECKING:
    from napari_medreasoner.imaging.readers.dicom.file import SeriesInfo

__all__ = ["findable", "is_readable", "open_image", "read_image", "read_single", "series_in"]

_LOOKED_AT: Final = 50


def _holds_dicom(folder: Path) -> bool:
    """Whether one of the first files in a folder, or below it, is DICOM."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return any(is_dicom(path) for path in islice(files, _LOOKED_AT))


def is_readable(path: Path) -> bool:
    """Whether `read_image` would try: by name, by the DICOM mark, or a folder of such files."""
    if path.is_dir():
        return _holds_dicom(path)
    return path.name.lower().endswith(READABLE) or is_dicom(path)


@contextmanager
def findable(path: Path) -> Iterator[None]:
    """Say in a `ReadError` that a path leads nowhere, or what the system has against it."""
    try:
        if not path.is_dir() and not path.is_file():
            raise ReadError(f"There is no file {path}; check the path.")
        yield
    except OSError as error:
        raise ReadError(f"{path.name} cannot be opened ({error.strerror}).") from error


def _read_file(path: Path, part: int | None) -> Volume:
    """Read with the function for the file; imported only when needed, as each import is slow."""
    kind = kind_of(path)
    if kind == "nifti":
        from napari_medreasoner.imaging.readers.nifti import read_nifti

        return read_nifti(path, part)
    if part not in {None, 1}:
        raise ReadError(f"{path.name} holds one image, no {part}; leave out the number.")
    if kind == "raster":
        from napari_medreasoner.imaging.readers.raster import read_raster

        return read_raster(path)
    if kind == "itk":
        from napari_medreasoner.imaging.readers.itk import read_itk

        return read_itk(path)
    if kind == "dicom":
        from napari_medreasoner.imaging.readers.dicom.file import read_dicom

        return read_dicom(path)
    raise ReadError(f"{path.name} is of a kind that is not read; use one of {', '.join(READABLE)}.")


def series_in(path: Path) -> tuple[SeriesInfo, ...]:
    """All series of a DICOM folder, or the one of a DICOM file, by their headers alone.

    Raises
    ------
    ReadError
        When there is none.
    """
    from napari_medreasoner.imaging.readers.dicom.folder import find_series, series_of

    if not path.is_dir():
        return (series_of(path),)
    found = find_series(path)
    if not found:
        raise ReadError(f"The folder {path.name} holds no DICOM images; choose another.")
    return found


def _series_files(folder: Path, part: int | None) -> tuple[Path, ...]:
    found = series_in(folder)
    if part is None and len(found) > 1:
        kinds = ", ".join(
            f"{number}: {one.modality or 'image'} with {one.slices} slices"
            for number, one in enumerate(found, 1)
        )
        raise ReadError(
            f"The folder {folder.name} holds {len(found)} series ({kinds}); choose one by its "
            "number."
        )
    number = 1 if part is None else part
    if not 1 <= number <= len(found):
        raise ReadError(f"The folder {folder.name} has series 1 to {len(found)}, no {number}.")
    return found[number - 1].files


def read_single(files: tuple[Path, ...], name: str, single: int) -> Volume:
    """Read one slice of a DICOM series, and no file but the one it is in.

    Parameters
    ----------
    files : tuple of Path
        Of one frame each, in their order; or one file of any number of frames.
    name : str
        For the user; the number of the slice is added.
    single : int
        Which, from 1.

    Raises
    ------
    ReadError
        When there is no such slice or it cannot be read.
    """
    from napari_medreasoner.imaging.readers.dicom.file import read_slice, slice_counts

    counts = slice_counts(files)
    slices = [(file, i) for file, count in zip(files, counts, strict=True) for i in range(count)]
    if not 1 <= single <= len(slices):
        raise ReadError(f"{name} has slices 1 to {len(slices)}, no {single}.")
    return read_slice(*slices[single - 1], f"{name} {single}")


def open_image(path: Path, part: int | None = None, single: int | None = None) -> Volume:
    """As `read_image`, but the array may be a view of any strides, or read-only.

    Raises
    ------
    ReadError
        As `read_image`.
    """
    with findable(path):
        if path.is_dir():
            from napari_medreasoner.imaging.readers.dicom.file import read_series

            files = _series_files(path, part)
            return (
                read_series(files, path.name)
                if single is None
                else read_single(files, path.name, single)
            )
        if single is None:
            return _read_file(path, part)
        if kind_of(path) != "dicom" or part not in {None, 1}:
            raise ReadError(
                f"{path.name} has no slices that are opened one by one, as those of a DICOM series "
                "are; open it as it is."
            )
        return read_single((path,), path.name, single)


def read_image(path: Path, part: int | None = None, single: int | None = None) -> Volume:
    """Read an image file, or a DICOM series in a folder, in this process.

    For files of our own. The child of `sandbox.read_sandboxed`, which everything else goes
    through, takes `open_image`.

    Parameters
    ----------
    path : Path
        File or folder.
    part : int, optional
        Which image of a folder or file that holds several, from 1: a series, or a volume of a
        4D NIfTI file. `parts.list_parts` lists them.
    single : int, optional
        Which slice, from 1, to take as a 2D image of its own: the way into a DICOM series that
        makes no regular volume.

    Raises
    ------
    ReadError
        When there is no such file, it is of a kind that is not read, it holds several images
        and none was chosen, or its reader refuses it.
    """
    volume = open_image(path, part, single)
    return replace(volume, array=np.require(volume.array, requirements=["C", "W"]))
