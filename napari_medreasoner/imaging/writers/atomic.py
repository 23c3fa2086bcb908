"""Files that are either the old one or the new one, never half of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_medreasoner.core.errors import ExportError

__all__ = ["make_folder", "replace_atomically", "write_bytes", "write_text"]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder for results, and those above it; an existing one is fine.

    Raises
    ------
    ExportError
        When there is a file in its place, or it may not be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"The folder {path} cannot be made ({error.strerror}); choose another."
        ) from error


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary file beside the target; put it in the target's place on success.

    Parameters
    ----------
    path : Path
        The target; its folder must exist.

    Yields
    ------
    Path
        An empty file with the target's suffixes, to be written by the caller.

    Raises
    ------
    ExportError
        When the folder is missing or not writable, or the disk is full. The old file stays.
    """
    # Not tempfile: its files are private, and these are to be shared as the user's umask says.
    temporary = path.with_name(f".{secrets.token_hex(8)}{''.join(path.suffixes[-2:])}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}); choose another folder."
        ) from error
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise ExportError(
            f"{path} could not be written ({error.strerror}); what was there before is unchanged."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically; errors as in `replace_atomically`."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 text file atomically; errors as in `replace_atomically`."""
    write_bytes(path, text.encode())
