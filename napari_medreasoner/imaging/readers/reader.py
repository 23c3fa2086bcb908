"""One way in for every file: by its name or first bytes, to the reader that knows it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.kinds import (
    DETACHED,
    DICOM,
    ITK,
    NIFTI,
    RASTER,
    READABLE,
    is_dicom,
)
from napari_medreasoner.imaging.volume import Volume

__all__ = ["is_readable", "read_image"]

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


def _reader(path: Path) -> Callable[[Path], Volume]:
    """The function for a file; imported only when asked for, as each is slow to import."""
    name = path.name.lower()
    if name.endswith(NIFTI):
        from napari_medreasoner.imaging.readers.nifti import read_nifti

        return read_nifti
    if name.endswith(RASTER):
        from napari_medreasoner.imaging.readers.raster import read_raster

        return read_raster
    if name.endswith((*ITK, *DETACHED)):
        from napari_medreasoner.imaging.readers.itk import read_itk

        return read_itk
    if name.endswith(DICOM) or is_dicom(path):
        from napari_medreasoner.imaging.readers.dicom.file import read_dicom

        return read_dicom
    raise ReadError(f"{path.name} is of a kind that is not read; use one of {', '.join(READABLE)}.")


def _series_files(folder: Path, series: int | None) -> tuple[Path, ...]:
    from napari_medreasoner.imaging.readers.dicom.file import find_series

    found = find_series(folder)
    if not found:
        raise ReadError(f"The folder {folder.name} holds no DICOM images; choose another.")
    if series is None and len(found) > 1:
        kinds = ", ".join(
            f"{number}: {one.modality or 'image'} with {one.slices} slices"
            for number, one in enumerate(found, 1)
        )
        raise ReadError(
            f"The folder {folder.name} holds {len(found)} series ({kinds}); choose one by its "
            "number."
        )
    number = 1 if series is None else series
    if not 1 <= number <= len(found):
        raise ReadError(f"The folder {folder.name} has series 1 to {len(found)}, no {number}.")
    return found[number - 1].files


def _read_single(files: tuple[Path, ...], name: str, single: int) -> Volume:
    from napari_medreasoner.imaging.readers.dicom.file import read_slice, slice_counts

    counts = slice_counts(files)
    slices = [(file, i) for file, count in zip(files, counts, strict=True) for i in range(count)]
    if not 1 <= single <= len(slices):
        raise ReadError(f"{name} has slices 1 to {len(slices)}, no {single}.")
    return read_slice(*slices[single - 1], f"{name} {single}")


def read_image(path: Path, series: int | None = None, single: int | None = None) -> Volume:
    """Read an image file, or a DICOM series in a folder, in this process.

    For files of our own, and for the child of `sandbox.read_sandboxed`, which everything else
    goes through.

    Parameters
    ----------
    path : Path
        File or folder.
    series : int, optional
        Which series of a folder that holds several, from 1.
    single : int, optional
        Which slice, from 1, to take as a 2D image of its own: the way into a DICOM series that
        makes no regular volume.

    Raises
    ------
    ReadError
        When there is no such file, it is of a kind that is not read, or its reader refuses it.
    """
    try:
        if path.is_dir():
            from napari_medreasoner.imaging.readers.dicom.file import read_series

            files = _series_files(path, series)
            return (
                read_series(files, path.name)
                if single is None
                else _read_single(files, path.name, single)
            )
        if not path.is_file():
            raise ReadError(f"There is no file {path}; check the path.")
        return _reader(path)(path) if single is None else _read_single((path,), path.name, single)
    except OSError as error:
        raise ReadError(f"{path.name} cannot be opened ({error.strerror}).") from error
