"""What the server remembers, and may forget at any time: images and embeddings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import TooLargeError, UnknownImageError

__all__ = ["ImageStore", "RecentCache"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_UNKNOWN_BYTES: Final = 2**20
"""Counted for a value that does not say how large it is."""


class ImageStore:
    """Uploaded images by content hash, the least recently used forgotten first.

    Parameters
    ----------
    max_bytes : int
        Of all images together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self.nbytes = 0

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._images

    def put(self, sha256: str, image: NDArray[np.generic]) -> None:
        """Keep an image, made read-only.

        Raises
        ------
        TooLargeError
            When it alone is larger than the store.
        """
        if image.nbytes > self._max_bytes:
            raise TooLargeError(
                f"The image of {image.nbytes} bytes is larger than the {self._max_bytes} bytes "
                "the server keeps; crop it or start the server with a larger cache."
            )
        self.forget(sha256)
        while self.nbytes + image.nbytes > self._max_bytes:
            self.forget(next(iter(self._images)))
        image.setflags(write=False)
        self._images[sha256] = image
        self.nbytes += image.nbytes

    def get(self, sha256: str) -> NDArray[Any]:
        """Return an image.

        Raises
        ------
        UnknownImageError
            When it was never uploaded, or was forgotten.
        """
        if sha256 not in self._images:
            raise UnknownImageError("The server does not hold this image; upload it and repeat.")
        self._images.move_to_end(sha256)
        return self._images[sha256]

    def forget(self, sha256: str) -> None:
        """Drop an image; harmless when it is not there."""
        image = self._images.pop(sha256, None)
        if image is not None:
            self.nbytes -= image.nbytes


class RecentCache(Generic[K, T]):
    """Values made on demand, the least recently used dropped first.

    Parameters
    ----------
    max_bytes : int
        Of all values together, by their attribute `nbytes`; the newest is kept in any case.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[K, tuple[T, int]] = OrderedDict()
        self.nbytes = 0

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K, make: Callable[[], T]) -> T:
        """Return the value of a key, made now if it is not there."""
        if key not in self._values:
            value = make()
            size = int(getattr(value, "nbytes", _UNKNOWN_BYTES))
            self._values[key] = (value, size)
            self.nbytes += size
        self._values.move_to_end(key)
        while self.nbytes > self._max_bytes and len(self._values) > 1:
            self._drop(next(iter(self._values)))
        return self._values[key][0]

    def drop(self, stale: Callable[[K], bool] = lambda _: True) -> None:
        """Drop the values whose key is stale; without an argument all of them."""
        for key in [key for key in self._values if stale(key)]:
            self._drop(key)

    def _drop(self, key: K) -> None:
        self.nbytes -= self._values.pop(key)[1]
