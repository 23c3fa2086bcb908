"""DICOM series in a folder, found by their headers alone.

Standard: DICOM PS3.3 C.7.3.1 (series) and PS3.10 (file format).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import Dataset

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.dicom.pixels import frames_of, open_header, reported
from napari_medreasoner.imaging.readers.dicom.stack import (
    DIRECTION,
    POSITION_MM,
    Place,
    along,
    places_of,
    stacked,
)
from napari_medreasoner.imaging.readers.dicom.values import modality_of
from napari_medreasoner.imaging.readers.kinds import is_dicom

__all__ = ["SeriesInfo", "find_series", "series_of"]

MAX_FILES: Final = 20_000
"""Most files looked at in one folder."""

_PASSES: Final = ("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers")

_ALIKE: Final = (
    ("PhotometricInterpretation", "kinds of colour"),
    ("FrameOfReferenceUID", "frames of reference"),
    ("Modality", "modalities"),
)
"""What all slices of a volume share, besides series, orientation and size."""


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """Slices in a folder that may make one volume.

    Attributes
    ----------
    uid : str
        SeriesInstanceUID; several entries share it where one series holds several stacks.
    description : str
        SeriesDescription, for the user to choose by; it can name a patient, so keep it out of
        logs and file names.
    modality : str
        As in "CT"; empty when not known.
    files : tuple of Path
        Sorted by position along the slice normal.
    slices : int
        Number of slices, counting the frames of a multi-frame file.
    problem : str
        Why the headers say that the slices make no regular volume; empty when they do not.
    """

    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]
    slices: int
    problem: str


def find_series(folder: Path) -> tuple[SeriesInfo, ...]:
    """Look for DICOM images in a folder and the folders in it.

    Files that are not DICOM, hold no image or are damaged are passed over; a DICOMDIR is not
    followed, nor a link that leads out of the folder. Slices belong together that share series,
    orientation and size, and, where positions repeat, acquisition, time or echo.

    Raises
    ------
    ReadError
        When the folder cannot be read or holds more than 20,000 files.
    """
    groups: list[list[_Entry]] = []
    for path in _files_in(folder):
        entry = _entry(path)
        if entry is None:
            continue
        home = next((group for group in groups if entry.joins(group[0])), None)
        if home is None:
            groups.append([entry])
        else:
            home.append(entry)
    split = [part for group in groups for part in _unrepeated(group)]
    return tuple(_series_info(group, folder.name) for group in split)


def series_of(path: Path) -> SeriesInfo:
    """The one series of a DICOM file.

    Raises
    ------
    ReadError
        When the file is damaged or holds no image.
    """
    return _series_info([_read_entry(path)], path.name)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the grouping needs of one file."""

    path: Path
    key: tuple[object, ...]
    kinds: tuple[str, ...]
    places: tuple[Place | None, ...]
    problem: str
    passes: tuple[str, ...]
    number: int
    frames: int
    description: str
    modality: str

    @property
    def place(self) -> Place | None:
        """Where the one slice of a file lies; not asked of several frames."""
        return self.places[0] if self.frames == 1 else None

    def joins(self, other: _Entry) -> bool:
        if self.key != other.key or max(self.frames, other.frames) > 1:
            return False
        if self.place is None or other.place is None:
            return self.place is other.place
        cosines = (self.place.across - other.place.across, self.place.down - other.place.down)
        return float(np.abs(cosines).max()) <= DIRECTION


def _files_in(folder: Path) -> list[Path]:
    root = folder.resolve()
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        if error.filename is None or Path(error.filename) == folder:
            raise ReadError(f"The folder {folder.name} cannot be read; check the path.") from None

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=False):
        folders.sort()
        paths = [Path(parent, name) for name in sorted(names) if name.upper() != "DICOMDIR"]
        found += [p for p in paths if p.is_file() and p.resolve().is_relative_to(root)]
        if len(found) > MAX_FILES:
            raise ReadError(
                f"The folder {folder.name} holds more than {MAX_FILES:,} files; choose a folder "
                "in it."
            )
    return found


def _entry(path: Path) -> _Entry | None:
    """None for what is not a readable DICOM image."""
    if not is_dicom(path):
        return None
    try:
        return _read_entry(path)
    except ReadError:
        return None


def _read_entry(path: Path) -> _Entry:
    with reported(path.name):
        ds = open_header(path)
        places, problem = _places(ds, path.name)
        text = str(ds.get("SeriesDescription") or "")
        return _Entry(
            path,
            (str(ds.get("SeriesInstanceUID") or ""), int(ds.Rows), int(ds.Columns)),
            tuple(str(ds.get(keyword)) for keyword, _ in _ALIKE),
            places,
            problem,
            tuple(str(ds.get(word)) for word in _PASSES),
            int(ds.get("InstanceNumber") or 0),
            frames_of(ds),
            "".join(c for c in text if c.isprintable())[:64].strip(),
            modality_of(ds),
        )


def _places(ds: Dataset, name: str) -> tuple[tuple[Place | None, ...], str]:
    """Places of the frames; of several frames that are no volume none, and why."""
    try:
        return places_of(ds, name), ""
    except ReadError as error:
        if frames_of(ds) == 1:
            raise
        return (), str(error)


def _unrepeated(group: list[_Entry]) -> Iterable[list[_Entry]]:
    """Part a group whose positions repeat by what tells the passes of the scanner apart."""
    if not _repeats(group):
        return [group]
    choices: list[tuple[int, ...]] = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    for choice in choices:
        parts: dict[tuple[str, ...], list[_Entry]] = {}
        for entry in group:
            parts.setdefault(tuple(entry.passes[i] for i in choice), []).append(entry)
        if not any(_repeats(part) for part in parts.values()):
            return parts.values()
    return [group]


def _repeats(group: Sequence[_Entry]) -> bool:
    places = [entry.place for entry in group if entry.place is not None]
    if len(places) < 2:
        return False
    depths = np.sort([place.corner @ places[0].normal for place in places])
    return bool((np.diff(depths) <= POSITION_MM).any())


def _series_info(group: list[_Entry], name: str) -> SeriesInfo:
    places = [entry.place for entry in group if entry.place is not None]
    if places:
        ordered = [group[index] for index in along(places)]
    else:
        ordered = sorted(group, key=lambda entry: (entry.number, entry.path))
    first = ordered[0]
    return SeriesInfo(
        str(first.key[0]),
        first.description,
        first.modality,
        tuple(entry.path for entry in ordered),
        sum(entry.frames for entry in ordered),
        _problem(ordered, name),
    )


def _problem(group: Sequence[_Entry], name: str) -> str:
    """Why slices of one size make no regular volume, as far as their headers tell."""
    if group[0].problem:
        return group[0].problem
    for index, (_, what) in enumerate(_ALIKE):
        if len({entry.kinds[index] for entry in group}) > 1:
            return f"{name} mixes different {what}; open it as separate slices."
    known = [place for entry in group for place in entry.places if place is not None]
    if len(group) > 1 and len(known) != len(group):
        return f"{name} holds slices that do not say where they lie; open it as separate slices."
    try:
        if known and len(known) == sum(entry.frames for entry in group):
            stacked(known, name)
    except ReadError as error:
        return str(error)
    return ""
