"""Waiting for something slow without losing the thread that waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Final

__all__ = ["with_pauses"]

_PAUSE_SECONDS: Final = 0.25


class _End:
    """Stands behind the last piece."""


def with_pauses(pieces: Generator[str]) -> Generator[str]:
    """The pieces of a generator that may block, with an empty one in every pause.

    The generator runs on a thread of its own, so that whoever reads can turn to other work or stop
    in the middle of a silence. When the reader leaves, it is closed at its next piece.

    Parameters
    ----------
    pieces : generator of str
        Its errors are raised to the reader.
    """
    found: queue.SimpleQueue[str | Exception | _End] = queue.SimpleQueue()
    left = threading.Event()

    def read() -> None:
        try:
            with closing(pieces):
                for piece in pieces:
                    if left.is_set():
                        return
                    found.put(piece)
        except Exception as error:  # noqa: BLE001 - raised again for the reader
            found.put(error)
        else:
            found.put(_End())

    threading.Thread(target=read, name="service", daemon=True).start()
    try:
        while True:
            try:
                item = found.get(timeout=_PAUSE_SECONDS)
            except queue.Empty:
                yield ""
                continue
            if isinstance(item, _End):
                return
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        left.set()
