"""Findings out as a DICOM segmentation that refers to the files the image came from.

Those files are read again for it, by a process of its own with memory and time bounded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from tempfile import TemporaryFile
from typing import IO, Any, Final

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.sandbox.process import environment
from napari_medreasoner.imaging.volume import Volume
from napari_medreasoner.imaging.writers.atomic import replace_atomically
from napari_medreasoner.imaging.writers.file_grid import in_file_order
from napari_medreasoner.imaging.writers.seg.order import NO_ROOM, Description, Order, send
from napari_medreasoner.imaging.writers.segment import Segment

__all__ = ["write_seg"]

_COMMAND: Final = (sys.executable, "-PB", "-m", "napari_medreasoner.imaging.writers.seg.child")
"""-P, so that a file named like a module in the current folder is not run; -B, as Python keeps a
compiled module that a full disk has cut short, and fails on it from then on."""

_MEMORY: Final = 6 * 2**30
_SECONDS: Final = 120.0
_LINE: Final = 2**16


def write_seg(path: Path, segments: Sequence[Segment], volume: Volume) -> None:
    """Write findings as one binary DICOM segmentation, one segment each; they may overlap.

    Before it takes the target's place it is read back: the same voxels, every centre within
    1e-3 mm of where the source's headers put it. Patient and study are those of the source,
    as the standard wants it; the UIDs are new.

    Parameters
    ----------
    path : Path
        Ends in ".dcm".
    segments : sequence of Segment
        Not empty, on the grid of `volume`.
    volume : Volume
        Read from DICOM files that are still there and say where they lie in the patient.

    Raises
    ------
    ExportError
        When the image is not such a one, the segmentation cannot be made or read back, or
        writing fails; a file that was there before is unchanged.
    """
    _check_source(volume)
    data = _made(segments, volume)
    with replace_atomically(path) as temporary:
        temporary.write_bytes(data)
        if temporary.read_bytes() != data:
            raise ExportError("The file read back differs from the one written; nothing was saved.")


def _check_source(volume: Volume) -> None:
    """Refuse an image that no segmentation can refer to, with the reason."""
    reason = ""
    if not volume.frames or volume.source is None:
        reason = "the image was not read from DICOM"
    elif not volume.grid.known:
        reason = "the image does not say where it lies in the patient"
    if reason:
        raise ExportError(
            f"A DICOM segmentation cannot be made, since {reason}; save it as .nii.gz instead."
        )


def _made(segments: Sequence[Segment], volume: Volume) -> bytes:
    """The file, as the child made it."""
    masks = [
        in_file_order(segment.mask.reshape(volume.grid.shape), volume).voxels.transpose(2, 1, 0)
        for segment in segments
    ]
    affine = in_file_order(masks[0], volume).affine
    order = Order(
        frames=volume.frames,
        shape=masks[0].shape,
        affine=tuple(map(tuple, affine.tolist())),
        segments=tuple(map(Description.of, segments)),
        memory=_MEMORY,
        seconds=_SECONDS,
    )
    try:
        with TemporaryFile() as request, TemporaryFile() as answer:
            send(order, masks, request)
            request.seek(0)
            _run(request, answer)
            answer.seek(0)
            return _understood(answer)
    except OSError as error:
        raise ExportError(
            f"The DICOM segmentation could not be made ({error.strerror}); what was there before "
            "is unchanged."
        ) from error


def _run(request: IO[bytes], answer: IO[bytes]) -> None:
    """Start the child and wait for its end; ExportError when it failed."""
    child: Popen[Any] = Popen(  # noqa: S603 - our own interpreter; nothing of the user's on its line
        _COMMAND,
        stdin=request,
        stdout=answer,
        stderr=DEVNULL,  # what libraries print there can be a patient's
        env=environment(),
        start_new_session=True,  # Ctrl-C in a terminal is for this process alone
    )
    with child:
        try:
            code = child.wait(_SECONDS)
        except TimeoutExpired:
            code = -signal.SIGALRM
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
    if code:
        reason = f"its maker ended with {code}"
        if code in (-signal.SIGALRM, -signal.SIGXCPU):
            reason = f"it took longer than {_SECONDS:g} s"
        if code == NO_ROOM:
            reason = "the disk of the temporary files is full"
        raise ExportError(
            f"The DICOM segmentation could not be made, since {reason}; what was there before is "
            "unchanged."
        )


def _understood(answer: IO[bytes]) -> bytes:
    """What the child answered; the size of it is bounded by the limits it ran under."""
    try:
        error = json.loads(answer.readline(_LINE))["error"]
    except (ValueError, KeyError, TypeError):
        error = "The DICOM files made their reader answer nonsense; save it as .nii.gz instead."
    if error:
        raise ExportError(" ".join(str(error).split()))
    return answer.read()
