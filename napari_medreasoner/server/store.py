"""What the server remembers, and may forget at any time: images and embeddings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import TooLargeError, UnknownImageError

__all__ = ["ImageStore", "RecentCache"]

T = TypeVar("T")


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
        self._bytes = 0

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
        self._forget(sha256)
        while self._bytes + image.nbytes > self._max_bytes:
            self._forget(next(iter(self._images)))
        image.setflags(write=False)
        self._images[sha256] = image
        self._bytes += image.nbytes

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

    def _forget(self, sha256: str) -> None:
        image = self._images.pop(sha256, None)
        if image is not None:
            self._bytes -= image.nbytes


class RecentCache(Generic[T]):
    """The results of the last few different calls.

    Parameters
    ----------
    entries : int
        How many are kept.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, made now if it is not there."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self._entries:
            self._values.popitem(last=False)
        return self._values[key]
