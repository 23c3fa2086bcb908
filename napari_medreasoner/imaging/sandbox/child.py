"""The process that opens one file for another process; see `sandbox`.

``python -P -m napari_medreasoner.imaging.sandbox.child`` takes its request as JSON on stdin, so
that no file name shows in the list of processes. It answers with a JSON header on stdout and the
voxels in a file that the parent made.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import MedReasonerError, ReadError
from napari_medreasoner.imaging.readers.reader import read_image
from napari_medreasoner.imaging.sandbox.messages import DTYPES, Failure, Header
from napari_medreasoner.imaging.sandbox.parent import memory_error

if sys.platform != "win32":
    import resource

__all__ = ["confine", "main"]


def confine(memory: int, seconds: float) -> None:
    """Limit what this process can take, for good; call before a file is opened.

    No core dumps, no file of even one byte written, `memory` bytes of address space, and an end
    after `seconds` of processor or wall-clock time even if the parent is gone.

    Parameters
    ----------
    memory : int
        Bytes.
    seconds : float
        Rounded up; the alarm comes a second later, so that the parent's own clock is first.
    """
    sys.dont_write_bytecode = True
    if sys.platform == "win32":
        return  # no such limits there; the parent's clock remains
    whole = math.ceil(seconds)
    _lower(resource.RLIMIT_CORE, 0, 0)
    _lower(resource.RLIMIT_CPU, whole, whole + 1)
    _lower(resource.RLIMIT_FSIZE, 0, memory)
    _lower(resource.RLIMIT_AS, memory, memory)
    signal.alarm(whole + 1)


def _lower(kind: int, soft: int, hard: int) -> None:
    _, highest = resource.getrlimit(kind)
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    resource.setrlimit(kind, (soft, hard))


def _ran_out(error: BaseException | None) -> bool:
    """Whether memory was short; readers wrap what their libraries raise."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _write(array: NDArray[Any], output: int) -> None:
    """Put an array into the parent's file, with the soft limit on file size lifted for it."""
    if sys.platform != "win32":
        _, highest = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (highest, highest))
    left = array.reshape(-1).view(np.uint8).data
    while left:
        left = left[os.write(output, left) :]


def _answer(request: dict[str, Any], output: int) -> Header | Failure:
    path, memory = Path(request["path"]), request["memory"]
    try:
        volume = read_image(path, request["series"], request["single"])
        array = volume.array
        if array.dtype.name not in DTYPES:
            raise ReadError(
                f"{path.name} has voxels of type {array.dtype}, which cannot be shown; convert "
                "them to float32 first."
            )
        _write(np.ascontiguousarray(array, array.dtype.newbyteorder("=")), output)
        return Header.of(volume)
    except (MemoryError, MedReasonerError) as error:
        text = memory_error(path, memory) if _ran_out(error) else str(error)
        return Failure(error=text.encode(errors="replace").decode()[:4000])


def main() -> None:
    """Answer the one request on stdin."""
    request = json.loads(sys.stdin.buffer.read())
    # Libraries print where they like; only the answer goes to the real stdout.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    output = request["output"]
    if isinstance(output, str):
        output = os.open(output, os.O_RDWR | getattr(os, "O_BINARY", 0))
    confine(request["memory"], request["seconds"])
    reply = _answer(request, output)
    with os.fdopen(answer_to, "wb") as stdout:
        stdout.write(reply.model_dump_json().encode())
    os._exit(0)  # taking the interpreter down in order would cost the parent its time


if __name__ == "__main__":
    main()
