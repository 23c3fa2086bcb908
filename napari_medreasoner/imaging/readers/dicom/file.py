"""DICOM in: one file, a series of slices, or a folder of series.

Standard: DICOM PS3.3, PS3.5 and PS3.10, read with pydicom; other DICOM libraries crash or hang
the process on damaged files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging.orientation import displayed
from napari_medreasoner.imaging.readers.dicom.decoding import decoded
from napari_medreasoner.imaging.readers.dicom.folder import SeriesInfo, find_series
from napari_medreasoner.imaging.readers.dicom.identity import identity_warnings
from napari_medreasoner.imaging.readers.dicom.pixels import (
    MAX_BYTES,
    forget_pixels,
    frames_of,
    open_header,
    open_image,
    reported,
)
from napari_medreasoner.imaging.readers.dicom.stack import (
    Place,
    Stack,
    places_of,
    plain_affine,
    stacked,
)
from napari_medreasoner.imaging.readers.dicom.values import (
    Scaling,
    intensities,
    modality_of,
    scaling_of,
)
from napari_medreasoner.imaging.readers.dicom.voi import Window, window_of
from napari_medreasoner.imaging.readers.kinds import DICOM
from napari_medreasoner.imaging.volume import SourceFrame, SourceGrid, Volume

__all__ = [
    "SeriesInfo",
    "find_series",
    "read_dicom",
    "read_series",
    "read_slice",
    "slice_counts",
]


@dataclass(frozen=True, slots=True)
class _Slices:
    """Frames of one file: what its header says of each; `ds` still holds their pixels."""

    ds: Dataset
    name: str
    origins: tuple[SourceFrame, ...]
    scalings: tuple[Scaling, ...]
    places: tuple[Place | None, ...]
    windows: tuple[Window | None, ...]
    warnings: tuple[str, ...]


def read_dicom(path: Path) -> Volume:
    """Read one DICOM file, of one or more frames; see `displayed` for how a volume is turned.

    Frames whose place the file gives become the slices of a volume; frames of a film without
    places are shown as slices with `Grid.known` False. A single sagittal, coronal or oblique
    slice is shown as it is stored.

    Raises
    ------
    ReadError
        When the file is damaged, holds no image, its codec is missing, or its frames do not make
        a regular volume.
    """
    return _volume([_opened(path)], _display_name(path))


def read_series(files: Sequence[Path], name: str) -> Volume:
    """Read slices, one to a file, as a volume; the order of the files does not matter.

    Parameters
    ----------
    files : sequence of Path
        Of one series.
    name : str
        For the user, as in the name of the folder.

    Raises
    ------
    ReadError
        When a file cannot be read, or the slices do not make a regular volume; see `stacked`.
        It says why; `read_slice` takes them one by one all the same.
    """
    if not files:
        raise ReadError(f"{name} holds no slices; choose another series.")
    if len(files) == 1:
        return replace(read_dicom(files[0]), name=name)
    opened = [_opened(path) for path in files]
    _refuse_mixed_series([one.ds for one in opened], name)
    if any(one.places[0] is None for one in opened):
        raise ReadError(
            f"{name} holds slices that do not say where they lie; open it as separate slices."
        )
    return _volume(opened, name)


def read_slice(path: Path, frame: int, name: str) -> Volume:
    """Read one frame as an image of its own, whether or not it could be part of a volume.

    Parameters
    ----------
    path : Path
        Of one frame or more; only the one asked for is decoded.
    frame : int
        From 0.
    name : str
        For the user.

    Returns
    -------
    Volume
        2D, as stored where it is not axial.

    Raises
    ------
    ReadError
        When the file cannot be read, or has no such frame.
    """
    file = _opened(path, lenient=True)
    count = len(file.origins)
    if not 0 <= frame < count:
        raise ReadError(f"{path.name} has frames 1 to {count}, no {frame + 1}.")
    only = slice(frame, frame + 1)
    one = replace(
        file,
        origins=file.origins[only],
        scalings=file.scalings[only],
        places=file.places[only],
        windows=file.windows[only],
    )
    return _volume([one], name)


def slice_counts(files: Sequence[Path]) -> tuple[int, ...]:
    """Number of frames in each file, by its header alone.

    Raises
    ------
    ReadError
        When a file is damaged or holds no image.
    """
    return tuple(frames_of(_header(path)) for path in files)


def _header(path: Path) -> Dataset:
    with reported(path.name):
        return open_header(path)


def _refuse_mixed_series(headers: Sequence[Dataset], name: str) -> None:
    """Refuse files of different size, colour or frame of reference, and multi-frame ones."""
    with reported(name):
        if any(frames_of(ds) > 1 for ds in headers):
            raise ReadError(f"{name} holds a file of several frames; open that file by itself.")
        sizes = sorted({(int(ds.Rows), int(ds.Columns)) for ds in headers})
        if len(sizes) > 1:
            raise ReadError(
                f"{name} mixes slices of {sizes[0][0]} x {sizes[0][1]} and {sizes[1][0]} x "
                f"{sizes[1][1]} pixels; open it as separate slices."
            )
        for keyword, what in (
            ("PhotometricInterpretation", "kinds of colour"),
            ("FrameOfReferenceUID", "frames of reference"),
            ("Modality", "modalities"),
        ):
            if len({str(ds.get(keyword)) for ds in headers}) > 1:
                raise ReadError(f"{name} mixes different {what}; open it as separate slices.")
        total = sizes[0][0] * sizes[0][1] * len(headers) * int(headers[0].BitsAllocated) // 8
        if total > MAX_BYTES:
            raise ReadError(f"{name} holds more than 2 GiB of pixels; that is more than is read.")


def _opened(path: Path, *, lenient: bool = False) -> _Slices:
    """Read a header; `lenient` takes a file whose frames are several stacks or times."""
    name = path.name
    with reported(name):
        ds = open_image(path)
        frames = range(frames_of(ds))
        windows = [window_of(ds, frame, name) for frame in frames]
        places = places_of(ds, name, lenient=lenient)
        notes = [note for _, note in windows]
        if len(frames) > 1 and None in places:
            notes.append(f"{name} does not say where its frames lie; they are shown as slices.")
        return _Slices(
            ds,
            name,
            tuple(SourceFrame(path, frame) for frame in frames),
            tuple(scaling_of(ds, frame, name) for frame in frames),
            places,
            tuple(window for window, _ in windows),
            (*dict.fromkeys(notes), *identity_warnings(ds)),
        )


def _volume(files: Sequence[_Slices], name: str) -> Volume:
    """One volume of the frames of one file, or of files of one frame each, in display order."""
    with reported(name):
        first = files[0].ds
        places = [place for file in files for place in file.places]
        known = [place for place in places if place is not None]
        code = int(len(known) == len(places))
        stack = (
            stacked(known, name)
            if code
            else Stack(list(range(len(places))), plain_affine(first, name))
        )
        windows = [window for file in files for window in file.windows]
        origins = [origin for file in files for origin in file.origins]
        notes = [note for file in files for note in file.warnings]
        # The middle of the stack, where windows that differ fit most slices.
        window = windows[stack.order[len(origins) // 2]]
        falls = window is not None and window[0] > window[1]
        return replace(
            _turned(_intensities(files, stack.order), stack.affine, code, name),
            modality=modality_of(first),
            window=window and (min(window), max(window)),
            inverted=(str(first.PhotometricInterpretation) == "MONOCHROME1") != falls,
            warnings=tuple(note for note in dict.fromkeys((*notes, stack.warning)) if note),
            frames=tuple(origins[index] for index in stack.order),
        )


def _intensities(files: Sequence[_Slices], order: Sequence[int]) -> NDArray[Any]:
    """Decode and rescale, shape (column, row, slice[, 3])."""
    frames = [frame for file in files for frame in _decoded(file)]
    scalings = [scaling for file in files for scaling in file.scalings]
    array = intensities([frames[i] for i in order], [scalings[i] for i in order])
    return array.transpose(2, 1, 0, *range(3, array.ndim))


def _decoded(file: _Slices) -> NDArray[Any]:
    """Stored values, shape (frame, row, column[, 3]); lets go of what they were decoded from."""
    with reported(file.name):
        whole = len(file.origins) == frames_of(file.ds)
        frames = decoded(file.ds, file.name, None if whole else file.origins[0].frame)
        forget_pixels(file.ds)
        return frames


def _turned(array: NDArray[Any], affine: NDArray[np.float64], code: int, name: str) -> Volume:
    """Turn (column, row, slice) to display; a single slice that is not axial stays as stored."""
    try:
        volume = displayed(array, affine, code=code, name=name)
    except ImageError:
        raise ReadError(f"{name} has a geometry that cannot be used; repair its header.") from None
    if array.shape[2] > 1 or volume.source is None or volume.source.axes[2] == 2:
        return volume
    columns, rows, _ = array.shape[:3]
    source = SourceGrid((columns, rows, 1), affine, code, (0, 1, 2), (False, False, False))
    grid = Grid((1, rows, columns), affine, known=code > 0)
    return Volume(np.ascontiguousarray(array[:, :, 0].swapaxes(0, 1)), grid, name, source=source)


def _display_name(path: Path) -> str:
    return path.stem if path.suffix.lower() in DICOM else path.name
