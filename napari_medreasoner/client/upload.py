"""Images as bodies of requests, made piece by piece so that a volume is not copied whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

__all__ = ["chunks", "compressed"]

_CHUNK: Final = 2**20

_LEVEL: Final = 1
"""Of zstd: CT and MR shrink to about half at some hundred megabytes a second."""


async def chunks(array: NDArray[Any]) -> AsyncIterator[bytes]:
    """Raw bytes of a C-contiguous array."""
    raw = array.reshape(-1).view(np.uint8)
    for start in range(0, raw.size, _CHUNK):
        yield raw[start : start + _CHUNK].tobytes()


async def compressed(array: NDArray[Any]) -> AsyncIterator[bytes]:
    """The same bytes in one zstd frame, compressed away from the event loop."""
    stream = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    async for chunk in chunks(array):
        yield await asyncio.to_thread(stream.compress, chunk)
    yield stream.flush()
