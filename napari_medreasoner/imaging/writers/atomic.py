"""Files that are either the old one or the new one, never half of it."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from napari_medreasoner.core.errors import ExportError

if sys.platform != "win32":
    import fcntl

__all__ = ["make_folder", "replace_atomically", "write_bytes", "write_text"]

_PREFIX: Final = ".medreasoner-"


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

    What exports that were killed left in the folder is removed on the way.

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
    try:
        temporary, lock = _temporary(path)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}); choose another folder."
        ) from error
    try:
        _sweep(path.parent)
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
        if lock is not None:
            os.close(lock)


def _temporary(target: Path) -> tuple[Path, int | None]:
    """Make an empty file beside the target, and lock it as long as this export lives."""
    # Not tempfile: its files are private, and these are to be shared as the user's umask says.
    while True:
        suffixes = "".join(target.suffixes[-2:])
        path = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}{suffixes}")
        path.touch(exist_ok=False)
        if sys.platform == "win32":
            return path, None  # an open file could not be renamed there
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # some network folders have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return path, lock
            os.close(lock)
        # Another export swept it away before it was locked: once more.


def _sweep(folder: Path) -> None:
    """Remove the temporary files that no living export has locked.

    The system drops a lock with the process that held it, so this is safe beside other exports,
    also those of other machines where the folder's locks are shared; without locks nothing is
    removed.
    """
    if sys.platform == "win32":
        return
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(lock)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically, read back; errors as in `replace_atomically`."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(data)
        if temporary.read_bytes() != data:
            raise ExportError(
                f"{path} read back differs from what was written; what was there before is "
                "unchanged."
            )


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 text file atomically; errors as in `replace_atomically`."""
    write_bytes(path, text.encode())
