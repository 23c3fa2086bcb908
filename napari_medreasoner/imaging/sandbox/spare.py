"""A child that waits with its readers imported, so that the next file need not wait for it."""

from __future__ import annotations

import atexit
from contextlib import suppress
from threading import Lock
from typing import Final

from napari_medreasoner.imaging.sandbox.process import Child

__all__ = ["SPARE", "Spare"]


class Spare:
    """The child for the next file. All methods may be called on any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._child: Child | None = None
        self._wanted = False

    def warm_up(self) -> None:
        """Have a child wait from now on; a new one whenever one has been taken.

        It ends with this process, however that ends.
        """
        with self._lock:
            if not self._wanted:
                atexit.register(self.cool_down)
            self._wanted = True
        self.renew()

    def renew(self) -> None:
        """Start a child if one is wanted and none waits."""
        with self._lock, suppress(OSError):  # without it the next file starts its own
            if self._wanted and self._child is None:
                self._child = Child("warm")

    def take(self) -> Child | None:
        """The child that waits, the caller's from now on; None when none is alive."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None and child.over():
            child.close()
            return None
        return child

    def cool_down(self) -> None:
        """End the child that waits and have none any more."""
        with self._lock:
            self._wanted = False
        atexit.unregister(self.cool_down)
        child = self.take()
        if child is not None:
            child.close()


SPARE: Final = Spare()
"""The one of this process."""
