"""Calls from the background thread, made on the Qt thread."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, Signal  # type: ignore[attr-defined]

__all__ = ["Mailbox"]


class Mailbox(QObject):
    """Has functions called on the thread it was made on, in the order they were posted."""

    _posted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._closed = False
        self._posted.connect(self._open, Qt.ConnectionType.QueuedConnection)

    def post(self, call: Callable[[], None]) -> None:
        """Post a function; from any thread."""
        if not self._closed:
            self._posted.emit(call)

    def close(self) -> None:
        """Drop what is posted and not yet called, and whatever comes."""
        self._closed = True

    def _open(self, call: Callable[[], None]) -> None:
        if not self._closed:
            call()
