"""Sizes that compressed DICOM frames claim for themselves, read before a codec sees them.

A codec allocates what the codestream claims, whatever the DICOM header says, so that a small
file could ask for any amount of memory.

Standard: ITU-T T.81 B.2.2 (JPEG), T.87 (JPEG-LS), T.800 A.5.1 (JPEG 2000), DICOM PS3.5 A.4.
"""

from __future__ import annotations

from struct import unpack_from
from typing import Any, Final

from pydicom import Dataset
from pydicom.encaps import generate_frames

from napari_medreasoner.core.errors import ReadError

__all__ = ["check_codestreams", "claimed_size"]

_J2K_START: Final = b"\xff\x4f\xff\x51"
_JP2_START: Final = b"\x00\x00\x00\x0cjP  "
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


def check_codestreams(ds: Dataset, name: str) -> None:
    """Refuse compressed frames of another size than the header's.

    Parameters
    ----------
    ds : Dataset
        With encapsulated PixelData of the JPEG family.
    name : str
        File name for the message.

    Raises
    ------
    ReadError
        When the size of a frame is not Rows x Columns, or its JP2 boxes have no length.
    """
    wanted = (int(ds.Rows), int(ds.Columns))
    count = int(ds.get("NumberOfFrames") or 1)
    for frame in generate_frames(ds.PixelData, number_of_frames=count):
        if _never_ends(frame):
            raise ReadError(f"{name} holds a compressed frame that is damaged; export it anew.")
        size = claimed_size(frame)
        if size is not None and size != wanted:
            raise ReadError(
                f"{name} holds a compressed frame of {size[0]} x {size[1]} pixels where its "
                f"header says {wanted[0]} x {wanted[1]}; the file is damaged."
            )


def _never_ends(frame: Any) -> bool:
    """Whether a JP2 box (T.800 I.4) is shorter than its own head: pydicom 3.0 loops on that."""
    at = 12 if frame[:8] == _JP2_START else len(frame)
    while at + 8 <= len(frame) and frame[at + 4 : at + 8] != b"jp2c":
        length = unpack_from(">I", frame, at)[0]
        if length < 8:
            return True
        at += length
    # A tail too short for a box is read by pydicom as a length too.
    return at < len(frame) < at + 8


def claimed_size(frame: Any) -> tuple[int, int] | None:
    """(row, column) size in a JPEG, JPEG-LS or JPEG 2000 codestream; None when not found."""
    start = frame.find(_J2K_START, 0, 4096)
    if start >= 0 and len(frame) >= start + 24:
        right, bottom, left, top = unpack_from(">4I", frame, start + 8)
        return bottom - top, right - left
    at = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] == 0xFF:
            at += 1
            continue
        if frame[at + 1] in _FRAME_HEADERS:
            rows, columns = unpack_from(">2H", frame, at + 5)
            return rows, columns
        at += 2 + unpack_from(">H", frame, at + 2)[0]
    return None
