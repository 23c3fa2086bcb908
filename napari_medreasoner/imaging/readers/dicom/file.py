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
from napari_medreasoner.imaging.readers.dicom.folder import SeriesInfo, find_series
from napari_medreasoner.imaging.readers.dicom.pixels import (
    MAX_BYTES,
    decoded,
    frames_of,
    open_header,
    open_whole,
    reported,
)
from napari_medreasoner.imaging.readers.dicom.stack import Place, places_of, plain_affine, stacked
from napari_medreasoner.imaging.readers.dicom.values import (
    Scaling,
    intensities,
    modality_of,
    scaling_of,
    window_of,
)
from napari_medreasoner.imaging.readers.kinds import DICOM
from napari_medreasoner.imaging.volume import SourceFrame, SourceGrid, Volume

__all__ = ["SeriesInfo", "find_series", "read_dicom", "read_series", "read_slices"]


@dataclass(frozen=True, slots=True)
class _File:
    """One file's pixels and what is needed to make a volume of them."""

    origins: tuple[SourceFrame, ...]
    frames: NDArray[Any]
    scalings: tuple[Scaling, ...]
    places: tuple[Place | None, ...]
    plain: NDArray[np.float64]
    modality: str
    inverted: bool
    windows: tuple[tuple[float, float] | None, ...]
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
    file = _read_file(path)
    return _assembled([file], _display_name(path))


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
        When a file cannot be read, or the slices do not make a regular volume: positions within
        0.01 mm, direction cosines within 1e-4, stacked along the normal within 1e-3. It says
        why; `read_slices` takes them all the same.
    """
    if not files:
        raise ReadError(f"{name} holds no slices; choose another series.")
    if len(files) == 1:
        return replace(read_dicom(files[0]), name=name)
    headers = [_header(path) for path in files]
    _refuse_mixed_series(headers, name)
    places = [place for path, ds in zip(files, headers, strict=True) for place in _places(path, ds)]
    known = [place for place in places if place is not None]
    if len(known) != len(files):
        raise ReadError(
            f"{name} holds slices that do not say where they lie; open it as separate slices."
        )
    order, _ = stacked(known, name)
    return _assembled([_read_file(files[index]) for index in order], name)


def read_slices(files: Sequence[Path], name: str) -> tuple[Volume, ...]:
    """Read slices as images of their own, for a series that makes no regular volume.

    Parameters
    ----------
    files : sequence of Path
        Of one frame or more.
    name : str
        For the user; the number of the slice is added.

    Returns
    -------
    tuple of Volume
        2D, in the order of the files and of their frames.

    Raises
    ------
    ReadError
        When a file cannot be read.
    """
    slices = [single for path in files for single in _singles(_read_file(path, lenient=True))]
    return tuple(
        _assembled([single], f"{name} {number}") for number, single in enumerate(slices, 1)
    )


def _header(path: Path) -> Dataset:
    with reported(path.name):
        return open_header(path)


def _places(path: Path, ds: Dataset) -> tuple[Place | None, ...]:
    with reported(path.name):
        return places_of(ds, path.name)


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


def _read_file(path: Path, *, lenient: bool = False) -> _File:
    """Decode a file; `lenient` takes one whose frames are several stacks or times."""
    name = path.name
    with reported(name):
        ds = open_whole(path)
        count = range(frames_of(ds))
        windows = [window_of(ds, frame, name) for frame in count]
        places = places_of(ds, name, lenient=lenient)
        notes = dict.fromkeys(note for _, note in windows if note)
        if len(count) > 1 and None in places:
            notes[f"{name} does not say where its frames lie; they are shown as slices."] = None
        return _File(
            tuple(SourceFrame(path, frame) for frame in count),
            decoded(ds, name),
            tuple(scaling_of(ds, frame, name) for frame in count),
            places,
            plain_affine(ds, name),
            modality_of(ds),
            str(ds.PhotometricInterpretation) == "MONOCHROME1",
            tuple(window for window, _ in windows),
            tuple(notes),
        )


def _singles(file: _File) -> list[_File]:
    """Each frame of a file as a file of its own."""
    return [
        replace(
            file,
            origins=file.origins[i : i + 1],
            frames=file.frames[i : i + 1],
            scalings=file.scalings[i : i + 1],
            places=file.places[i : i + 1],
            windows=file.windows[i : i + 1],
        )
        for i in range(len(file.frames))
    ]


def _assembled(files: Sequence[_File], name: str) -> Volume:
    """One volume of the frames of one file, or of files of one frame each, in display order."""
    with reported(name):
        frames = [frame for file in files for frame in file.frames]
        scalings = [scaling for file in files for scaling in file.scalings]
        places = [place for file in files for place in file.places]
        windows = [window for file in files for window in file.windows]
        origins = [origin for file in files for origin in file.origins]
        known = [place for place in places if place is not None]
        code = int(len(known) == len(frames))
        order, affine = stacked(known, name) if code else (range(len(frames)), files[0].plain)
        ordered = [frames[index] for index in order], [scalings[index] for index in order]
        array = intensities(*ordered)
        array = array.transpose(2, 1, 0, *range(3, array.ndim))
        try:
            volume = _turned(array, affine, code, name)
        except ImageError:
            raise ReadError(
                f"{name} has a geometry that cannot be used; repair its header."
            ) from None
        return replace(
            volume,
            modality=files[0].modality,
            # The middle of the stack, where windows that differ fit most slices.
            window=windows[order[len(order) // 2]],
            inverted=files[0].inverted,
            warnings=tuple(dict.fromkeys(note for file in files for note in file.warnings)),
            frames=tuple(origins[index] for index in order),
        )


def _turned(array: NDArray[Any], affine: NDArray[np.float64], code: int, name: str) -> Volume:
    """Turn (column, row, slice) to display; a single slice that is not axial stays as stored."""
    volume = displayed(array, affine, code=code, name=name)
    if array.shape[2] > 1 or volume.source is None or volume.source.axes[2] == 2:
        return volume
    columns, rows, _ = array.shape[:3]
    source = SourceGrid((columns, rows, 1), affine, code, (0, 1, 2), (False, False, False))
    grid = Grid((1, rows, columns), affine, known=code > 0)
    return Volume(np.ascontiguousarray(array[:, :, 0].swapaxes(0, 1)), grid, name, source=source)


def _display_name(path: Path) -> str:
    return path.stem if path.suffix.lower() in DICOM else path.name
