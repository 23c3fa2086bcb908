"""The process that makes one DICOM segmentation; see `seg.parent`.

``python -P -m napari_medreasoner.imaging.writers.seg.child`` takes an `Order` and its masks on
stdin. It answers on stdout with a line of JSON, which holds the error or nothing, and the file.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np

from napari_medreasoner.core.errors import MedReasonerError
from napari_medreasoner.imaging.sandbox.child import _fill, confine
from napari_medreasoner.imaging.writers.seg.build import ADVICE, build
from napari_medreasoner.imaging.writers.seg.order import NO_ROOM, receive

__all__ = ["main"]


def main() -> None:
    """Answer the one order on stdin."""
    order, masks = receive(sys.stdin.buffer)
    # Libraries print where they like; only the answer goes to the real stdout.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    confine(order.memory, order.seconds)
    error, data = "", b""
    try:
        data = build(order, masks)
    except MemoryError:
        error = f"The DICOM segmentation does not fit into memory; {ADVICE}."
    except MedReasonerError as problem:
        error = str(problem)
    answer = json.dumps({"error": error}).encode() + b"\n" + data
    try:
        _fill(answer_to, np.frombuffer(answer, np.uint8))
    except OSError:
        os._exit(NO_ROOM)
    os._exit(0)


if __name__ == "__main__":
    main()
