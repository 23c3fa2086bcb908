"""Opening a file nobody vouches for: in a process of its own, with memory and time bounded.

The decoders of image formats are old C code. A file that makes one of them crash, hang or ask for
all memory ends the child; here it is one sentence. Not a sandbox against a decoder that has been
taken over: the child may still read the user's files.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO, Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    TypeAdapter,
    ValidationError,
)

from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.imaging.sandbox.messages import Failure, Header
from napari_medreasoner.imaging.volume import Volume

if sys.platform == "linux":
    import fcntl

__all__ = ["memory_error", "read_sandboxed"]

COMMAND: Final = (sys.executable, "-P", "-m", "napari_medreasoner.imaging.sandbox.child")
"""What is started; -P, so that a file named like a module in the current folder is not run."""

_GIB: Final = 2**30
_HEADER_BYTES: Final = 2**23
_TAIL_BYTES: Final = 2**12

_KEPT: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT",
    "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
)  # fmt: skip
_SINGLE: Final = ("OPENBLAS", "OMP", "MKL")

_REPLY: Final[TypeAdapter[Header | Failure]] = TypeAdapter(Header | Failure)


def memory_error(path: Path, memory: int) -> str:
    """Sentence for a file that needs more than `memory` bytes."""
    return (
        f"{path.name} needs more than {memory / _GIB:.3g} GiB of memory to open; crop it or "
        "resample it first."
    )


def read_sandboxed(
    path: Path,
    *,
    series: int | None = None,
    single: int | None = None,
    timeout: float = 60,
    memory: int = 6 * _GIB,
) -> Volume:
    """Read an image file or folder in a child process; see `reader.read_image` for which.

    The array comes back in memory that both processes see, so that this process grows by the
    array and no more; it is writable and private. Nothing the child says is trusted: types,
    sizes and geometry are checked again here. May be called on any thread.

    Parameters
    ----------
    path : Path
        File or folder.
    series : int, optional
        Which series of a folder that holds several, from 1.
    single : int, optional
        Which slice, from 1, to take as a 2D image of its own.
    timeout : float
        Seconds until the child is killed.
    memory : int
        Bytes of address space the child may use (Linux; elsewhere as far as the system knows it).

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
    request: dict[str, Any] = {
        "path": str(path.absolute()),
        "series": series,
        "single": single,
        "memory": memory,
        "seconds": timeout,
    }
    try:
        with _output() as (output, name):
            request["output"] = output if name is None else name
            answer = _ask(path, request, () if name else (output,))
            return _understood(path, answer, output)
    except OSError as error:
        raise ReadError(
            f"{path.name} cannot be opened, since no process can be started for it "
            f"({error.strerror}); close other programs."
        ) from error


def _understood(path: Path, answer: bytes, output: int) -> Volume:
    """The volume that a child's answer and its file make, once both have been checked."""
    try:
        reply = _REPLY.validate_json(answer)
        if isinstance(reply, Failure):
            raise ReadError(" ".join(reply.error.split()))
        return reply.volume(_mapped(output, reply))
    except (ValidationError, ImageError, OSError) as error:
        raise ReadError(
            f"{path.name} made its reader answer nonsense; the file is damaged or hostile."
        ) from error


@contextmanager
def _output() -> Iterator[tuple[int, str | None]]:
    """Descriptor of an empty file for the voxels; its name where descriptors are not inherited."""
    if sys.platform == "linux":
        handle = os.memfd_create("medreasoner", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            yield handle, None
        finally:
            os.close(handle)
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield file.fileno(), file.name


def _mapped(output: int, header: Header) -> NDArray[Any]:
    """The voxels, not copied. OSError when their size is not the header's."""
    if sys.platform == "linux":
        # Whatever still holds the file can no longer change or cut it under our feet.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(output, fcntl.F_ADD_SEALS, seals)
    if os.fstat(output).st_size != header.nbytes:
        raise OSError("the voxels have another size than the header says")
    view = mmap.mmap(output, header.nbytes, access=mmap.ACCESS_COPY)
    return np.frombuffer(view, header.dtype).reshape(header.shape)


def _environment() -> dict[str, str]:
    """What the child needs to find Python and its libraries; no tokens, one thread."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    single = {f"{library}_NUM_THREADS": "1" for library in _SINGLE}
    return kept | single | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}


def _tail(stream: IO[bytes]) -> bytes:
    """Last bytes of a stream; the rest is thrown away as it comes."""
    tail = b""
    while chunk := os.read(stream.fileno(), 2**16):
        tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail


def _ask(path: Path, request: dict[str, Any], shared: tuple[int, ...]) -> bytes:
    """Start the child, wait for its end and return what it wrote; ReadError if it failed."""
    timeout, memory = request["seconds"], request["memory"]
    deadline = time.monotonic() + timeout
    child = Popen(  # noqa: S603 - our own interpreter; the file's name is not on its command line
        COMMAND,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=_environment(),
        pass_fds=shared,
        start_new_session=True,  # Ctrl-C in a terminal is for this process alone
    )
    stdin, stdout, stderr = (
        cast("IO[bytes]", pipe) for pipe in (child.stdin, child.stdout, child.stderr)
    )
    with child, ThreadPoolExecutor(2) as pool:
        try:
            # One byte too many tells a flood; it is never read to its end.
            answer = pool.submit(stdout.read, _HEADER_BYTES + 1)
            complaint = pool.submit(_tail, stderr)
            with suppress(BrokenPipeError):
                os.write(stdin.fileno(), json.dumps(request).encode())
            stdin.close()
            text = answer.result(timeout)
            if len(text) <= _HEADER_BYTES:
                child.wait(max(deadline - time.monotonic(), 0))
        except (TimeoutError, TimeoutExpired):
            raise _slow(path, timeout) from None
        finally:
            if child.returncode is None:
                _kill(child)
            code = child.wait()
        if code and len(text) <= _HEADER_BYTES:
            raise _failed(path, code, complaint.result(), timeout, memory)
    return text


def _kill(child: Popen[bytes]) -> None:
    """Kill a child not yet waited for, so that its id is still its own, and what it started."""
    if sys.platform == "win32":
        child.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _slow(path: Path, timeout: float) -> ReadError:
    return ReadError(
        f"{path.name} took longer than {timeout:g} s to open; the file is damaged, or too large "
        "for this machine."
    )


def _failed(path: Path, code: int, complaint: bytes, timeout: float, memory: int) -> ReadError:
    """Why the child ended, from its exit code and the end of what it wrote to stderr."""
    if code in (-signal.SIGXCPU, -signal.SIGALRM):
        return _slow(path, timeout)
    # The kernel kills with SIGKILL when the whole machine is short.
    if code == -signal.SIGKILL or b"bad_alloc" in complaint or b"MemoryError" in complaint:
        return ReadError(memory_error(path, memory))
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
