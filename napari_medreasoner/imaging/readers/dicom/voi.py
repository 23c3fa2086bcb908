"""The grey window a DICOM file asks for; a table or a curve becomes the straight window nearest.

Standard: DICOM PS3.3 C.11.2 (VOI LUT) and C.7.6.16.2.10 (Frame VOI LUT). A VOI LUT applies to
intensities after rescale or the modality LUT.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from napari_medreasoner.imaging.readers.dicom.values import frame_value, numbers, scaling_of

__all__ = ["CURVE", "TABLE", "Window", "window_of"]

Window = tuple[float, float]
"""Intensities shown as black and as white."""

CURVE: Final = "The file asks for a curved (SIGMOID) grey window; a straight one stands for it."
TABLE: Final = "The file asks for a table of grey values; a straight window stands for it."

_SEQUENCE: Final = "FrameVOILUTSequence"
_ENDS: Final = (0.01, 0.99)
"""Shares of a table's range of greys that are taken as black and as white."""


def window_of(ds: Dataset, frame: int, name: str) -> tuple[Window | None, str]:
    """Window that a frame asks for, and a warning or "".

    The first of several windows is taken, and a table where there is none. DICOM's LINEAR maps
    centre - 0.5 -+ (width - 1) / 2, LINEAR_EXACT and SIGMOID centre -+ width / 2 (PS3.3
    C.11.2.1.2 and C.11.2.1.3).

    Raises
    ------
    ReadError
        When the window is not finite numbers.
    """
    found = [
        _first(frame_value(ds, frame, _SEQUENCE, word)) for word in ("WindowCenter", "WindowWidth")
    ]
    centre, width = (numbers(value, 1, "a window", name) for value in found)
    if centre is None or width is None or width[0] <= 0:
        table = frame_value(ds, frame, _SEQUENCE, "VOILUTSequence")
        return (_table_window(ds, frame, table[0], name), TABLE) if table else (None, "")
    function = str(frame_value(ds, frame, _SEQUENCE, "VOILUTFunction") or "LINEAR")
    half, middle = width[0] / 2, centre[0]
    if function == "LINEAR" and width[0] >= 2:
        half, middle = (width[0] - 1) / 2, centre[0] - 0.5
    return (middle - half, middle + half), CURVE if function == "SIGMOID" else ""


def _first(value: Any) -> Any:
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    return next(iter(value), None) if several else value


def _table_window(ds: Dataset, frame: int, item: Dataset, name: str) -> Window | None:
    """Where a table's greys leave their darkest and reach their brightest; None if it is flat.

    A table that falls gives the higher intensity as black.
    """
    count, first, _ = (int(number) for number in item.LUTDescriptor)
    if first >= 2**15 and (ds.get("PixelRepresentation") or scaling_of(ds, frame, name)[1] < 0):
        # Written as unsigned, though intensities can be negative.
        first -= 2**16
    greys = _entries(ds, item, count or 2**16).astype(np.float64)
    falls = bool(greys[-1] < greys[0])
    shares = greys[::-1] if falls else greys
    low, high = shares.min(), shares.max()
    if low == high:
        return None
    shares = (shares - low) / (high - low)
    black = max(int(np.argmax(shares > _ENDS[0])) - 1, 0)
    white = int(np.argmax(shares >= _ENDS[1]))
    if black == white:
        return None
    last = first + len(greys) - 1
    ends = (last - black, last - white) if falls else (first + black, first + white)
    return float(ends[0]), float(ends[1])


def _entries(ds: Dataset, item: Dataset, count: int) -> NDArray[Any]:
    """Greys of a table: words, or bytes where there is but one byte for each."""
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data))[:count]
    order = "<" if ds.file_meta.TransferSyntaxUID.is_little_endian else ">"
    kind = np.dtype(f"{order}u2") if len(data) >= 2 * count else np.dtype(np.uint8)
    return np.frombuffer(data, kind, count)
