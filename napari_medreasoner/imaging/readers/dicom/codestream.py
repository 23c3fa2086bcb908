"""Compressed DICOM frames judged before a codec sees them: the size they claim, and their end.

A codec allocates what the codestream claims, whatever the DICOM header says, so that a small
file could ask for any amount of memory; and some make up what is missing of a JPEG cut short.

Standard: ITU-T T.81 B.2.2 (JPEG), T.87 (JPEG-LS), T.800 A.5.1 (JPEG 2000), DICOM PS3.5 A.4.
"""

from __future__ import annotations

from struct import unpack_from
from typing import Any, Final

from pydicom import Dataset
from pydicom.encaps import generate_frames, get_frame

from napari_medreasoner.core.errors import ReadError

__all__ = ["check_codestreams", "claimed_size"]

_J2K_START: Final = b"\xff\x4f\xff\x51"
_JP2_START: Final = b"\x00\x00\x00\x0cjP  "
_JPEG_START: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"
_PADDING: Final = b"\x00\xff"
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


def check_codestreams(ds: Dataset, name: str, frame: int | None = None) -> None:
    """Refuse compressed frames of another size than the header's, and cut or broken ones.

    Parameters
    ----------
    ds : Dataset
        With encapsulated PixelData of the JPEG family.
    name : str
        File name for the message.
    frame : int, optional
        The only frame to look at, from 0.

    Raises
    ------
    ReadError
        When the size of a frame is not Rows x Columns or not found, or a JPEG has no end.
    """
    wanted = (int(ds.Rows), int(ds.Columns))
    count = int(ds.get("NumberOfFrames") or 1)
    if frame is None:
        streams = generate_frames(ds.PixelData, number_of_frames=count)
    else:
        streams = iter((get_frame(ds.PixelData, frame, number_of_frames=count),))
    for stream in streams:
        size = None if _is_cut(stream) else claimed_size(stream)
        if size is None:
            raise ReadError(f"{name} holds a compressed frame that is damaged; export it anew.")
        if size != wanted:
            raise ReadError(
                f"{name} holds a compressed frame of {size[0]} x {size[1]} pixels where its "
                f"header says {wanted[0]} x {wanted[1]}; the file is damaged."
            )


def _is_cut(frame: Any) -> bool:
    """Whether a JPEG has no end (T.81 B.1.1.3); what pads it to an even length is passed over."""
    return frame[:2] == _JPEG_START and not frame.rstrip(_PADDING).endswith(_JPEG_END)


def claimed_size(frame: Any) -> tuple[int, int] | None:
    """(row, column) size in a JPEG, JPEG-LS or JPEG 2000 codestream; None when not found."""
    if frame[:2] == _JPEG_START:
        return _jpeg_size(frame)
    start = _j2k_start(frame)
    if start is None or len(frame) < start + 24:
        return None
    right, bottom, left, top = unpack_from(">4I", frame, start + 8)
    return bottom - top, right - left


def _jpeg_size(frame: Any) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] == 0xFF:
            at += 1
            continue
        if frame[at + 1] in _FRAME_HEADERS:
            rows, columns = unpack_from(">2H", frame, at + 5)
            return rows, columns
        at += 2 + unpack_from(">H", frame, at + 2)[0]
    return None


def _j2k_start(frame: Any) -> int | None:
    """Where a JPEG 2000 codestream starts, in JP2 boxes (T.800 I.4) or without; None if nowhere.

    A box shorter than its own head, or a tail too short for one, would make pydicom 3.0 loop.
    """
    at = 0
    if frame[:8] == _JP2_START:
        at = 12
        while at + 8 <= len(frame) and frame[at + 4 : at + 8] != b"jp2c":
            length = unpack_from(">I", frame, at)[0]
            if length < 8:
                return None
            at += length
        at += 8
    return at if frame[at : at + 4] == _J2K_START else None
