"""What models see: intensities mapped to an 8-bit picture by one grey window."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError

__all__ = ["auto_window", "default_window", "to_rgb", "to_uint8"]

_SOFT_TISSUE: Final = (-160.0, 240.0)
"""Hounsfield units shown as black and white: level 40, width 400, the usual abdominal window."""

_AIR: Final = -500
"""A CT image with anything below this many units is taken to be stored in Hounsfield units."""


def auto_window(image: NDArray[Any]) -> tuple[float, float]:
    """0.5th and 99.5th percentile of the finite intensities.

    Raises
    ------
    ImageError
        When no pixel is finite.
    """
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        raise ImageError("The image holds no finite value; check how it was made or loaded.")
    low, high = np.percentile(finite, (0.5, 99.5))
    return float(low), float(high)


def default_window(image: NDArray[Any], modality: str) -> tuple[float, float]:
    """Window for an image of which the user has said nothing.

    The full range of an 8-bit picture, the soft-tissue window of a CT in Hounsfield units,
    else `auto_window`.

    Raises
    ------
    ImageError
        When no pixel is finite.
    """
    if image.dtype == np.uint8:
        return 0.0, 255.0
    if modality == "CT" and np.nanmin(image) < _AIR:
        return _SOFT_TISSUE
    return auto_window(image)


def to_uint8(image: NDArray[Any], window: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Map intensities to 0-255 through a window (low, high); NaN becomes the low end.

    An 8-bit image without a window is returned as it is. A flat image becomes black.
    """
    if window is None and image.dtype == np.uint8:
        return image
    low, high = window or auto_window(image)
    if not low < high:
        return np.zeros(image.shape, np.uint8)
    values = np.nan_to_num(image.astype(np.float64), nan=low, posinf=high, neginf=low)
    shares = (np.clip(values, low, high) - low) / (high - low)
    mapped: NDArray[np.uint8] = (shares * 255).astype(np.uint8)
    return mapped


def to_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(row, column) or (row, column, 3) as (row, column, 3)."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
