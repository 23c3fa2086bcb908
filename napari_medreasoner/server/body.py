"""Bodies of uploads, read no further than they may be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import zstandard
from fastapi import Request

from napari_medreasoner.core.errors import ImageError

__all__ = ["read_body"]

_WINDOW_BYTES: Final = 2**23

_BITE: Final = 2**10
"""Compressed bytes unpacked at a time: at most 32 MiB come of them (128 KiB of 4 bytes)."""


async def read_body(request: Request, length: int) -> bytearray:
    """Read the bytes of an image, decompressed if they come with `Content-Encoding: zstd`.

    Parameters
    ----------
    request : Request
        Of the upload.
    length : int
        Exact number of bytes of the image.

    Raises
    ------
    ImageError
        When there are more or fewer, they are damaged, or the encoding is not known.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding not in ("identity", "zstd"):
        raise ImageError(
            f'The encoding "{encoding}" is not known; send the image plain or as zstd.'
        )
    pieces = request.stream() if encoding == "identity" else _unpacked(request.stream())
    # Grown as the bytes come: a header that promises much must not reserve memory.
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > length:
            break
    if len(body) != length:
        raise ImageError(
            f"The image's bytes do not fit its shape and type ({length} bytes expected); "
            "upload it again."
        )
    return body


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()
    try:
        async for chunk in chunks:
            for start in range(0, len(chunk), _BITE):
                yield stream.decompress(chunk[start : start + _BITE])
    except zstandard.ZstdError as error:
        raise ImageError("The image arrived damaged; upload it again.") from error
