"""Findings added to a correction log (`napari_medreasoner.core.corrections`)."""

from __future__ import annotations

import os
from pathlib import Path

from napari_medreasoner.core.corrections import CORRECTIONS, Correction
from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.writers.atomic import make_folder, write_bytes

__all__ = ["append_correction"]


def append_correction(folder: Path, correction: Correction, picture: bytes) -> None:
    """Add a finding and its picture; what was in the log before stays.

    Parameters
    ----------
    folder : Path
        The log; made when it is missing.
    correction : Correction
        Names the picture by a path in the folder.
    picture : bytes
        A PNG file.

    Raises
    ------
    ExportError
        When the folder or the disk does not take it. A line that was cut off so is closed by the
        next one, and left out by whoever reads the log.
    """
    make_folder(folder)
    write_bytes(folder / correction.image, picture)
    line = correction.model_dump_json().encode() + b"\n"
    path = folder / CORRECTIONS
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _append(handle, line)
        finally:
            os.close(handle)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}); choose another folder."
        ) from error


def _append(handle: int, line: bytes) -> None:
    """One write, on a line of its own, and on the disk before this returns."""
    end = os.lseek(handle, 0, os.SEEK_END)
    torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
    whole = b"\n" + line if torn else line
    if os.write(handle, whole) != len(whole):
        raise OSError(28, "the disk is full")
    os.fsync(handle)
