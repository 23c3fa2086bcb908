"""Sizes a file claims, checked before anything is allocated or decompressed."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from napari_medreasoner.core.errors import ReadError

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "MAX_VOXELS",
    "check_claim",
    "check_packed",
    "check_pixels",
    "unpack",
    "unreadable",
]

MAX_VOXELS: Final = 2**30
"""Largest volume read: 1024 slices of 1024 x 1024."""

MAX_BYTES: Final = 4 * 2**30
"""Largest pixel data read, decompressed."""

MAX_PIXELS: Final = 100_000_000
"""Largest picture read."""

_DEFLATE_RATIO: Final = 1032
"""No deflate stream expands by more (zlib's technical notes), so what claims more is cut short."""

_BOMB_RATIO: Final = 200
_BOMB_BYTES: Final = 512 * 2**20
# Label maps of a whole CT are 300 MB and compress 1000:1, so the ratio counts only above them.

_CHUNK: Final = 2**18
_PADDING: Final = 2**16


def check_claim(
    name: str, shape: Sequence[int], bits: int, present: int, *, packed: bool = False
) -> None:
    """Check the size a header claims against the caps and the bytes that are there.

    Parameters
    ----------
    name : str
        Of the file, for the message.
    shape : sequence of int
        Claimed dimensions, in any order.
    bits : int
        Per voxel.
    present : int
        Bytes of the file that can hold voxels.
    packed : bool
        Those bytes are compressed with deflate.

    Raises
    ------
    ReadError
        When a dimension is not positive, the image is too large, the file too short for it, or
        its compression is one only bombs have.
    """
    size = " x ".join(map(str, shape))
    if not shape or min(shape) <= 0:
        raise ReadError(f'{name} claims the size "{size}"; the file is damaged.')
    needed = math.prod(shape) * bits // 8
    if math.prod(shape) > MAX_VOXELS or needed > MAX_BYTES:
        raise ReadError(
            f"{name} claims {size} voxels, more than is read; crop it or resample it first."
        )
    if needed > present * (_DEFLATE_RATIO if packed else 1):
        raise ReadError(f"{name} is too short for its {size} voxels; get a complete copy of it.")
    if packed and needed > _BOMB_BYTES and needed > present * _BOMB_RATIO:
        raise ReadError(
            f"{name} is compressed more than {_BOMB_RATIO}:1, as only a decompression bomb or an "
            "empty image is; if you trust it, decompress it first."
        )


def check_pixels(name: str, width: int, height: int) -> None:
    """Check the size of a picture before it is decoded.

    Raises
    ------
    ReadError
        When it has no pixels or more than `MAX_PIXELS`.
    """
    if width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise ReadError(
            f"{name} has {width} x {height} pixels, more than is read; crop it or scale it down."
        )


def check_packed(file: IO[bytes], name: str, needed: int) -> int:
    """Decompress a gzip or zlib stream, keeping nothing, up to its end and checksum.

    Parameters
    ----------
    file : binary file
        At the start of the stream; what follows the stream is ignored.
    name : str
        Of the file, for the message.
    needed : int
        Bytes the stream must give; decompressing stops as soon as there are more.

    Returns
    -------
    int
        Bytes the stream is long, compressed.

    Raises
    ------
    ReadError
        When it is damaged, or gives less or more.
    """
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    start, size = file.tell(), 0
    try:
        while not stream.eof and size <= needed:
            block = stream.unconsumed_tail or file.read(_CHUNK)
            piece = stream.decompress(block, _CHUNK)
            size += len(piece)
            if not block and not piece:
                break
    except zlib.error as error:
        raise ReadError(
            f"{name} has compressed voxels that are damaged; get another copy of it."
        ) from error
    if size != needed or not stream.eof:
        what = "more" if size > needed else "fewer"
        raise ReadError(f"{name} holds {what} voxels than it says; get another copy of it.")
    return file.tell() - start - len(stream.unused_data)


def unpack(path: Path, needed: int) -> bytes:
    """Decompress a .gz file to its end, so that its checksum is compared, which nibabel skips.

    Parameters
    ----------
    path : Path
        The file.
    needed : int
        Bytes it should give; a little more is padding.

    Raises
    ------
    ReadError
        When it is damaged, or gives much more than is needed.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(needed + _PADDING + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    if len(data) > needed + _PADDING:
        raise ReadError(f"{path.name} holds more voxels than it says; get another copy of it.")
    return data


def unreadable(path: Path, error: Exception) -> ReadError:
    """Sentence for a file that a library gave up on."""
    return ReadError(
        f"{path.name} cannot be read ({type(error).__name__}); the file is damaged or of another "
        "kind."
    )
