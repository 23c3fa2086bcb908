"""Opening a file nobody vouches for: in a process of its own, with memory and time bounded.

The decoders of image formats are old C code. A file that makes one of them crash, hang or ask for
all memory ends the child; here it is one sentence. Not a sandbox against a decoder that has been
taken over: the child may still read the user's files.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from io import BufferedReader
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, Final, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.imaging.readers.parts import Part
from napari_medreasoner.imaging.sandbox.messages import (
    Failure,
    Header,
    Listing,
    memory_error,
)
from napari_medreasoner.imaging.sandbox.process import Child, Incoming
from napari_medreasoner.imaging.sandbox.spare import SPARE
from napari_medreasoner.imaging.volume import Volume

if sys.platform == "linux":
    import fcntl

__all__ = ["cool_down", "list_parts_sandboxed", "read_sandboxed", "warm_up"]

_GIB: Final = 2**30
_ANSWER_BYTES: Final = 2**23

_IMAGE: Final[TypeAdapter[Header | Failure]] = TypeAdapter(Header | Failure)
_PARTS: Final[TypeAdapter[Listing | Failure]] = TypeAdapter(Listing | Failure)

_T = TypeVar("_T")
_M = TypeVar("_M", Header, Listing)


def warm_up() -> None:
    """Have a child ready for the next file, and a new one after each.

    Starts one process that has imported the usual readers and waits, with about 100 MiB of
    memory; returns at once. It opens one file, as any child does, and ends with this process.
    """
    SPARE.warm_up()


def cool_down() -> None:
    """Have no child wait any more: `warm_up` taken back."""
    SPARE.cool_down()


def read_sandboxed(
    path: Path,
    *,
    part: int | None = None,
    single: int | None = None,
    timeout: float = 60,
    memory: int = 6 * _GIB,
) -> Volume:
    """Read an image file or folder in a child process; see `reader.read_image` for which.

    The array comes back in memory that the child filled, so that this process grows by the
    array and no more; it is writable and private. Nothing the child says is trusted: types,
    sizes and geometry are checked again here. May be called on any thread.

    Parameters
    ----------
    path : Path
        File or folder.
    part : int, optional
        Which image of a folder or file that holds several, from 1.
    single : int, optional
        Which slice, from 1, to take as a 2D image of its own.
    timeout : float
        Seconds until the child is killed.
    memory : int
        Bytes of address space the child may use.

    Returns
    -------
    Volume
        Equal to what `read_image` gives, in native byte order.

    Raises
    ------
    ReadError
        When the file is refused, or the child crashed, took too long, ran out of memory, or
        answered what it should not.
    """
    request = {"ask": "image", "part": part, "single": single}
    return _asked(path, request, _volume, timeout, memory)


def list_parts_sandboxed(
    path: Path, *, timeout: float = 60, memory: int = 6 * _GIB
) -> tuple[Part, ...]:
    """List the images of a file or folder in a child process; see `parts.list_parts`.

    Parameters
    ----------
    path : Path
        File or folder.
    timeout, memory : float, int
        As for `read_sandboxed`.

    Raises
    ------
    ReadError
        As for `read_sandboxed`.
    """
    return _asked(path, {"ask": "parts"}, _parts, timeout, memory)


def _asked(
    path: Path,
    request: dict[str, Any],
    understood: Callable[[bytes, int], _T],
    timeout: float,
    memory: int,
) -> _T:
    """Have the spare or a new child answer; see `read_sandboxed` for the errors."""
    known = {"path": str(path.absolute()), "memory": memory, "seconds": timeout}
    deadline = time.monotonic() + timeout
    try:
        spare = SPARE.take()
        if spare is not None:
            with suppress(_NeverBegan), closing(spare):
                return _exchange(spare, path, request | known, understood, deadline)
        with closing(Child()) as child:
            return _exchange(child, path, request | known, understood, deadline)
    except _NeverBegan as error:
        raise error.reason from None
    except OSError as error:
        raise ReadError(
            f"{path.name} cannot be opened, since no process can be started for it "
            f"({error.strerror}); close other programs."
        ) from error
    finally:
        SPARE.renew()


class _NeverBegan(Exception):
    """A child ended before it took its request, so the file is not why."""

    def __init__(self, reason: ReadError) -> None:
        super().__init__()
        self.reason = reason


def _exchange(
    child: Child,
    path: Path,
    request: dict[str, Any],
    understood: Callable[[bytes, int], _T],
    deadline: float,
) -> _T:
    """Ask a child, see it end as it should, and understand what it answered."""
    with ThreadPoolExecutor(1) as pool:
        tail = pool.submit(child.tail)
        try:
            child.send(request)
            # One byte too many tells a flood; it is never read to its end.
            text = BufferedReader(Incoming(child, deadline)).read(_ANSWER_BYTES + 1)
            code = child.wait(deadline) if len(text) <= _ANSWER_BYTES else 0
        except (TimeoutError, TimeoutExpired):
            raise _slow(path, request["seconds"]) from None
        finally:
            child.end()
            child.hush()
    if code:
        reason = _failed(path, code, tail.result(), request)
        raise reason if text else _NeverBegan(reason)
    try:
        return understood(text, child.voxels)
    except (ValidationError, ImageError, OSError) as error:
        raise ReadError(
            f"{path.name} made its reader answer nonsense; the file is damaged or hostile."
        ) from error


def _volume(text: bytes, voxels: int) -> Volume:
    header = _reply(text, _IMAGE)
    array = np.frombuffer(_mapped(voxels, header.nbytes), header.dtype).reshape(header.shape)
    if header.dtype == "bool" and array.view(np.uint8).max() > 1:
        raise ImageError("A yes or no is neither.")
    return header.volume(array)


def _parts(text: bytes, voxels: int) -> tuple[Part, ...]:
    listing = _reply(text, _PARTS)
    return listing.parts_with(_mapped(voxels, listing.nbytes))


def _reply(text: bytes, kind: TypeAdapter[_M | Failure]) -> _M:
    """An answer, checked; ReadError for a refusal."""
    reply = kind.validate_json(text)
    if isinstance(reply, Failure):
        raise ReadError(" ".join(reply.error.split()))
    return reply


def _mapped(voxels: int, size: int) -> mmap.mmap | bytes:
    """The child's file, not copied. OSError when it has another size than its answer says."""
    if sys.platform == "linux":
        # Whatever still holds the file can no longer change or cut it under our feet.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(voxels, fcntl.F_ADD_SEALS, seals)
    if os.fstat(voxels).st_size != size:
        raise OSError("the voxels have another size than the answer says")
    return mmap.mmap(voxels, size, access=mmap.ACCESS_COPY) if size else b""


def _slow(path: Path, timeout: float) -> ReadError:
    return ReadError(
        f"{path.name} took longer than {timeout:g} s to open; the file is damaged, or too large "
        "for this machine."
    )


def _failed(path: Path, code: int, complaint: bytes, request: dict[str, Any]) -> ReadError:
    """Why the child ended, from its exit code and the end of what it wrote to stderr."""
    if code in (-signal.SIGXCPU, -signal.SIGALRM):
        return _slow(path, request["seconds"])
    # The kernel kills with SIGKILL when the whole machine is short.
    if code == -signal.SIGKILL or b"bad_alloc" in complaint or b"MemoryError" in complaint:
        return ReadError(memory_error(path, request["memory"]))
    if code < 0:
        with suppress(ValueError):
            return ReadError(
                f"{path.name} made its reader crash ({signal.Signals(-code).name}); the file is "
                "damaged or hostile."
            )
    lines = complaint.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
    shown = "".join(letter for letter in last if letter.isprintable())[:200]
    return ReadError(f"{path.name} could not be opened; its reader ended with: {shown}")
