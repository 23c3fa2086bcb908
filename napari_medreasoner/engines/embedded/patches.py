"""A picture as the patches that Qwen2.5-VL's vision tower reads, without transformers.

The same numbers as `Qwen2VLImageProcessor` gives for a picture whose sides are multiples of 28.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.errors import ImageError

__all__ = ["MERGE", "PATCH", "patches_of", "resized", "shown_size"]

PATCH: Final = 14
MERGE: Final = 2
"""Patches along each side of what becomes one token."""

_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_DEVIATION: Final = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
"""Of CLIP's training images (Radford et al., 2021), as Qwen's processor has them."""

_FRAMES: Final = 2
"""The tower is made for films: a picture counts as two equal frames."""

_MOST_ELONGATED: Final = 200


def shown_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Size of a picture with the area of a square, as Qwen's `smart_resize` chooses it.

    Parameters
    ----------
    width, height : int
        Of the stored picture.
    side : int
        Of the square, in pixels.

    Returns
    -------
    tuple of int
        Width and height, multiples of 28.

    Raises
    ------
    ImageError
        When one side is 200 times the other.
    """
    if max(width, height) > _MOST_ELONGATED * min(width, height):
        raise ImageError(
            f"The picture of {width} x {height} pixels is too elongated for this model; use "
            "another slice."
        )
    unit, area = PATCH * MERGE, side**2
    across, down = (round(length / unit) * unit for length in (width, height))
    if across * down > area:
        scale = sqrt(width * height / area)
        across, down = (
            max(unit, floor(length / scale / unit) * unit) for length in (width, height)
        )
    elif across * down < area:
        scale = sqrt(area / (width * height))
        across, down = (ceil(length * scale / unit) * unit for length in (width, height))
    return across, down


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture of shape (row, column, 3) at another width and height, as in training."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def patches_of(picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Cut a picture into patches.

    Parameters
    ----------
    picture : ndarray of uint8, shape (row, column, 3)
        Sides are multiples of 28.

    Returns
    -------
    patches : ndarray of float32, shape (patch, 3 * 2 * 14 * 14)
        The four patches of a token one after the other, tokens row by row.
    grid : (int, int)
        Patches down and across.
    """
    values = (picture.astype(np.float32) / 255 - _MEAN) / _DEVIATION
    down, across = values.shape[0] // PATCH, values.shape[1] // PATCH
    split = values.reshape(down // MERGE, MERGE, PATCH, across // MERGE, MERGE, PATCH, 3)
    ordered = split.transpose(0, 3, 1, 4, 6, 2, 5)[:, :, :, :, :, None]
    framed = np.repeat(ordered, _FRAMES, axis=5).astype(np.float32)
    return np.ascontiguousarray(framed).reshape(down * across, -1), (down, across)
