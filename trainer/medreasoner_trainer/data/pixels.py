"""Pictures as bytes of a file, decoded with care, and masks written as such."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.limits import check_pixels

__all__ = ["decode_image", "decode_mask", "encode_mask", "picture_size", "suffix_of"]

_FORMATS: Final = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif"}
_DEEP: Final = ("I", "F")
"""First letters of Pillow's modes of more than eight bits, which turn white as RGB."""

_HALF: Final = 127
"""Level above which a pixel of a lossy mask belongs to it."""


def _open(data: bytes | Path, name: str) -> Image.Image:
    """Open without Pillow's warning about large pictures; `check_pixels` has its own limit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            source = BytesIO(data) if isinstance(data, bytes) else data
            picture = Image.open(source, formats=tuple(_FORMATS))
    except Exception as error:
        # Pillow's parsers raise SyntaxError, struct.error, EOFError and more on damaged files.
        raise _unreadable(name, error) from error
    check_pixels(name, *picture.size)
    return picture


def _unreadable(name: str, error: Exception) -> ReadError:
    return ReadError(
        f"{name} cannot be read as a PNG, JPEG or TIFF picture ({type(error).__name__}); restore "
        "the data set."
    )


def _decoded(data: bytes, name: str, mode: str) -> tuple[NDArray[np.uint8], str | None]:
    """Pixels in a mode of Pillow, and the format they were stored in."""
    with _open(data, name) as picture:
        if mode == "RGB" and picture.mode.startswith(_DEEP):
            raise ReadError(f"{name} has more than 8 bits a pixel; window it to 8 bits first.")
        try:
            return np.asarray(picture.convert(mode)), picture.format
        except Exception as error:
            raise _unreadable(name, error) from error


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Pixels of a picture, of shape (row, column, 3); `name` is for the message.

    Raises
    ------
    ReadError
        When it is damaged, of another format, of more than 8 bits, or too large.
    """
    return _decoded(data, name, "RGB")[0]


def decode_mask(data: bytes, name: str) -> NDArray[np.bool_]:
    """Mask of shape (row, column): what is not black; in a JPEG, what is more than half white.

    Raises
    ------
    ReadError
        When it is damaged, of another format, or too large.
    """
    levels, stored = _decoded(data, name, "L")
    return levels > (_HALF if stored == "JPEG" else 0)


def picture_size(data: bytes | Path, name: str) -> tuple[int, int]:
    """Width and height of a picture, from its header alone; errors as `decode_image`."""
    with _open(data, name) as picture:
        return picture.size


def suffix_of(data: bytes, name: str) -> str:
    """File suffix for a picture, such as ".png"; errors as `decode_image`."""
    with _open(data, name) as picture:
        return _FORMATS[picture.format or "PNG"]


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Write a mask of shape (row, column) as a grey PNG of 0 and 255, as U-MRG has them."""
    buffer = BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()
