"""What a DICOM header says of the pixels: per frame or per file, rescale and modality.

Standard: DICOM PS3.3 C.7.6.16 (functional groups) and C.11.1 (rescale).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.tag import Tag

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.dicom.pixels import GREYS

__all__ = [
    "Scaling",
    "frame_value",
    "intensities",
    "modality_of",
    "numbers",
    "scaling_of",
]

Scaling = tuple[float, float]
"""Rescale slope and intercept: intensity = stored * slope + intercept."""

_PER_FRAME: Final = Tag("PerFrameFunctionalGroupsSequence")
_SHARED: Final = Tag("SharedFunctionalGroupsSequence")
_MODALITIES: Final = {
    "CT": "CT",
    "MR": "MRI",
    "CR": "X-ray",
    "DX": "X-ray",
    "RF": "X-ray",
    "MG": "Mammography",
    "US": "Ultrasound",
    "OP": "Fundus",
    "OPT": "OCT",
    "ES": "Endoscopy",
    "SM": "Histopathology",
    "XC": "Dermoscopy",
    "DERM": "Dermoscopy",
}


def numbers(value: Any, count: int, what: str, name: str) -> tuple[float, ...] | None:
    """Numbers of a DICOM element; None when it is missing or empty.

    Raises
    ------
    ReadError
        When there are not `count` finite numbers.
    """
    if value is None or value == "":
        return None
    listed = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    if not listed:
        return None
    result = tuple(float(item) for item in listed)
    if len(result) != count or not all(map(math.isfinite, result)):
        raise ReadError(
            f"{name} gives {what} that is not {count} finite numbers; repair its header."
        )
    return result


def frame_value(ds: Dataset, frame: int, sequence: str, keyword: str) -> Any:
    """Value of one frame: its own functional group, else the shared one, else the file's.

    Parameters
    ----------
    ds : Dataset
        Of any kind; one without functional groups has but the file's own values.
    frame : int
        From 0.
    sequence, keyword : str
        As in "PlanePositionSequence", "ImagePositionPatient".
    """
    for tag, number in ((_PER_FRAME, frame), (_SHARED, 0)):
        # Looked for by tag: this is asked for every value of every file of a series.
        groups = ds[tag].value if tag in ds else ()
        item = groups[number].get(sequence) if number < len(groups) else None
        if item and item[0].get(keyword) not in (None, ""):
            return item[0].get(keyword)
    return ds.get(keyword)


def scaling_of(ds: Dataset, frame: int, name: str) -> Scaling:
    """Rescale slope and intercept of one frame; (1, 0) for colour and where a LUT did it."""
    if str(ds.get("PhotometricInterpretation")) not in GREYS or "ModalityLUTSequence" in ds:
        return 1.0, 0.0
    found = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        value = frame_value(ds, frame, "PixelValueTransformationSequence", keyword)
        found.append((numbers(value, 1, f"a {keyword}", name) or (default,))[0])
    if found[0] == 0:
        raise ReadError(f"{name} gives a RescaleSlope of 0; repair its header.")
    return found[0], found[1]


def intensities(frames: Sequence[NDArray[Any]], scalings: Sequence[Scaling]) -> NDArray[Any]:
    """Stack frames and rescale each by its own slope and intercept.

    Parameters
    ----------
    frames : sequence of ndarray
        Each of shape (row, column) or (row, column, 3).
    scalings : sequence of (slope, intercept)
        One for each frame.

    Returns
    -------
    ndarray, shape (frame, row, column[, 3])
        As stored when no frame is rescaled; a whole type that holds all values when slopes and
        intercepts are whole; float32, or float64 for more than 16 bits, otherwise.
    """
    stored = np.result_type(*frames)
    if all(scaling == (1.0, 0.0) for scaling in scalings):
        return np.stack(frames)
    whole = all(value.is_integer() for scaling in scalings for value in scaling)
    if whole and stored.kind in "iub":
        dtype = _holding(frames, scalings, stored)
    else:
        dtype = np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)
    result = np.empty((len(frames), *frames[0].shape), dtype)
    wide = np.int64 if dtype.kind in "iu" else np.float64
    for target, frame, (slope, intercept) in zip(result, frames, scalings, strict=True):
        scaled = frame
        if slope != 1:
            scaled = np.multiply(frame, wide(slope), dtype=wide, casting="unsafe")
        np.add(scaled, wide(intercept), out=target, dtype=wide, casting="unsafe")
    return result


def _holding(
    frames: Sequence[NDArray[Any]], scalings: Sequence[Scaling], stored: np.dtype[Any]
) -> np.dtype[Any]:
    """Smallest of the stored type, int16, int32 and float64 that holds the rescaled values."""
    ends = [
        float(end) * slope + intercept
        for frame, (slope, intercept) in zip(frames, scalings, strict=True)
        for end in (frame.min(), frame.max())
    ]
    for candidate in (stored, np.dtype(np.int16), np.dtype(np.int32)):
        limits = np.iinfo(candidate)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return candidate
    return np.dtype(np.float64)


def modality_of(ds: Dataset) -> str:
    """Modality as the templates name it; empty when it is none of them."""
    return _MODALITIES.get(str(ds.get("Modality") or ""), "")
