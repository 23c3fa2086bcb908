"""What can be opened out of a file or folder that holds several images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging.readers.kinds import kind_of
from napari_medreasoner.imaging.readers.reader import findable, open_image, read_single, series_in
from napari_medreasoner.imaging.volume import Volume
from napari_medreasoner.imaging.window import default_window, to_rgb, to_uint8

if TYPE_CHECKING:
    from napari_medreasoner.imaging.readers.dicom.file import SeriesInfo
    from napari_medreasoner.imaging.readers.nifti import NiftiFile

__all__ = ["MAX_PARTS", "THUMBNAIL", "Part", "list_parts"]

MAX_PARTS: Final = 10_000
"""Most images listed."""

THUMBNAIL: Final = 96
"""Most pixels a side."""

_MAX_THUMBNAILS: Final = 200
_THUMBNAIL_SECONDS: Final = 15.0
"""No thumbnail is begun later than this, so that slow images are still listed."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One image of several, for the user to choose by.

    Attributes
    ----------
    number : int
        From 1: `part` of `read_image`.
    description : str
        As in a SeriesDescription; it can name a patient, so keep it out of logs and file names.
    modality : str
        As in "CT"; empty when not known.
    slices : int
        Number of slices.
    problem : str
        Why the slices make no volume, in a sentence; empty when they do. Its slices can still
        be opened one by one.
    thumbnail : ndarray of uint8, shape (row, column, 3), or None
        Of the middle slice, at most 96 pixels a side; None when it cannot be decoded, or there
        are many.
    """

    number: int
    description: str
    modality: str
    slices: int
    problem: str = ""
    thumbnail: NDArray[np.uint8] | None = field(default=None, repr=False)


def list_parts(path: Path) -> tuple[Part, ...]:
    """List the images of a file or folder, in this process: for the child of `sandbox`.

    Parameters
    ----------
    path : Path
        A DICOM folder has one part a series, a 4D NIfTI file one a volume; any other file is one
        part.

    Returns
    -------
    tuple of Part
        In the order of their numbers. At most 200 have a thumbnail, fewer when decoding is slow.

    Raises
    ------
    ReadError
        When the path leads nowhere, there is nothing to list, or more than 10,000 images.
    """
    with findable(path):
        kind = "dicom" if path.is_dir() else kind_of(path)
        if kind == "dicom":
            found = series_in(path)
            _refuse_many(path, len(found))
            parts = (_series(number, one, path) for number, one in enumerate(found, 1))
        elif kind == "nifti":
            from napari_medreasoner.imaging.readers.nifti import open_nifti

            file = open_nifti(path)
            _refuse_many(path, file.count)
            parts = (_nifti_volume(number, file) for number in range(1, file.count + 1))
        else:
            volume = open_image(path)
            whole = Part(1, "", volume.modality, volume.grid.shape[0])
            parts = ((whole, lambda: _middle(volume)) for _ in range(1))
        return tuple(_illustrated(parts))


_Sketch = tuple[Part, Callable[[], Volume]]
"""A part without its thumbnail, and what gives the slice to make that of."""


def _refuse_many(path: Path, count: int) -> None:
    if count > MAX_PARTS:
        raise ReadError(
            f"{path.name} holds {count:,} images, more than are listed; open one by its number."
        )


def _series(number: int, series: SeriesInfo, path: Path) -> _Sketch:
    part = Part(number, series.description, series.modality, series.slices, series.problem)
    return part, lambda: read_single(series.files, path.name, series.slices // 2 + 1)


def _nifti_volume(number: int, file: NiftiFile) -> _Sketch:
    turned = file.turned(number)
    description = f"volume {number} of {file.count}" if file.count > 1 else ""
    part = Part(number, description, "", turned.grid.shape[0])
    return part, lambda: file.scaled(_middle(turned))


def _middle(volume: Volume) -> Volume:
    """The middle slice as an image of its own."""
    slices, rows, columns = volume.grid.shape
    if not volume.is_volume:
        return volume
    grid = Grid((1, rows, columns), volume.grid.affine, known=volume.grid.known)
    return replace(volume, array=volume.array[slices // 2], grid=grid, source=None, frames=())


def _illustrated(sketches: Iterator[_Sketch]) -> Iterator[Part]:
    """Parts with thumbnails, as long as there are neither too many nor they take too long."""
    end = time.monotonic() + _THUMBNAIL_SECONDS
    for part, middle in sketches:
        wanted = part.number <= _MAX_THUMBNAILS and time.monotonic() < end
        yield replace(part, thumbnail=_thumbnail(middle)) if wanted else part


def _thumbnail(middle: Callable[[], Volume]) -> NDArray[np.uint8] | None:
    """A small picture in the slice's own proportions; None when it cannot be decoded."""
    from PIL import Image

    try:
        volume = middle()
        picture = to_rgb(to_uint8(volume.array, default_window(volume)))
    except (ReadError, ImageError):
        return None
    _, rows_mm, columns_mm = volume.grid.spacing
    sides = np.array((picture.shape[1] * columns_mm, picture.shape[0] * rows_mm))
    shares = sides / sides.max() * min(THUMBNAIL, max(picture.shape[:2]))
    width, height = (max(round(share), 1) for share in shares.tolist())
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))
