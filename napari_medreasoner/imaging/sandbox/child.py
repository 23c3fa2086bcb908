"""The process that opens one file for another process; see `sandbox`.

``python -P -m napari_medreasoner.imaging.sandbox.child`` takes its request as JSON on stdin, so
that no file name shows in the list of processes. It answers with JSON on stdout, and with the
voxels in a file that the parent made. With the word ``warm`` it imports the usual readers before
it looks at stdin.
"""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import MedReasonerError, ReadError
from napari_medreasoner.imaging.readers.kinds import NIFTI
from napari_medreasoner.imaging.readers.parts import list_parts
from napari_medreasoner.imaging.readers.reader import open_image
from napari_medreasoner.imaging.sandbox.messages import (
    DTYPES,
    Failure,
    Header,
    Listing,
    memory_error,
)

__all__ = ["confine", "import_readers", "main"]


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
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _load(request: dict[str, Any]) -> tuple[Header | Listing, list[NDArray[Any]]]:
    """What is asked for: the header of the answer and the arrays that follow it."""
    path = Path(request["path"])
    if request["ask"] == "parts":
        parts = list_parts(path)
        return Listing.of(parts), [one.thumbnail for one in parts if one.thumbnail is not None]
    volume = open_image(path, request["part"], request["single"])
    if volume.array.dtype.name not in DTYPES:
        raise ReadError(
            f"{path.name} has voxels of type {volume.array.dtype}, which cannot be shown; convert "
            "them to float32 first."
        )
    return Header.of(volume), [volume.array]


def _answer(request: dict[str, Any]) -> Header | Listing | Failure:
    try:
        reply, arrays = _load(request)
        for array in arrays:
            _fill(request["voxels"], array)
    except (MemoryError, MedReasonerError) as error:
        short = _ran_out(error)
        text = memory_error(Path(request["path"]), request["memory"]) if short else str(error)
        return Failure(error=text.encode(errors="replace").decode()[:4000])
    return reply


def _fill(voxels: int, array: NDArray[Any]) -> None:
    """Add an array in native byte order to the parent's file.

    A slice at a time, as it may be a view of any kind, which is so copied but once; with the
    soft limit on file size lifted.
    """
    _, highest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (highest, highest))
    for piece in array if array.ndim > 2 else array[None]:
        native = np.ascontiguousarray(piece, piece.dtype.newbyteorder("="))
        left = native.reshape(-1).view(np.uint8).data
        while left:
            left = left[os.write(voxels, left) :]


def _leave_out(*modules: str) -> None:
    """Let imports of these fail, where libraries do without them but are slow with them."""
    sys.modules.update(dict.fromkeys(modules))  # type: ignore[arg-type]


def import_readers() -> None:
    """Import what most files need; SimpleITK is slow and large, and its formats are rarer."""
    for module in ("dicom.file", "nifti", "raster"):
        import_module(f"napari_medreasoner.imaging.readers.{module}")
    import_module("PIL.Image").init()


def main() -> None:
    """Answer the one request on stdin."""
    # Libraries print where they like; only the answer goes to the real stdout.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    _leave_out("requests")  # pydicom's, to download examples
    if "warm" in sys.argv:
        import_readers()
    text = sys.stdin.buffer.read()
    if not text:
        return  # the parent is gone, or wants nothing any more
    os.write(answer_to, b" ")  # from here on the file is to blame; blanks mean nothing in JSON
    request = json.loads(text)
    if request["path"].lower().endswith(NIFTI) and "pydicom" not in sys.modules:
        _leave_out("pydicom")  # nibabel's, for the headers of one maker
    confine(request["memory"], request["seconds"])
    reply = _answer(request)
    with os.fdopen(answer_to, "wb") as stdout:
        stdout.write(reply.model_dump_json().encode())
    os._exit(0)  # taking the interpreter down in order would cost the parent its time


if __name__ == "__main__":
    main()
