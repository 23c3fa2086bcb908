"""What models see: intensities mapped to an 8-bit picture by one grey window."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.imaging.volume import Volume

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


def default_window(volume: Volume) -> tuple[float, float]:
    """Intensities shown as black and as white, for an image of which the user has said nothing.

    The window the file asks for; else the full range of an 8-bit picture, the soft-tissue
    window of a CT in Hounsfield units, or `auto_window`. The first is the higher one where high
    values are meant to be dark (MONOCHROME1).

    Raises
    ------
    ImageError
        When no pixel is finite.
    """
    image = volume.array
    if volume.window is not None:
        low, high = volume.window
    elif image.dtype == np.uint8:
        low, high = 0.0, 255.0
    elif volume.modality == "CT" and np.nanmin(image) < _AIR:
        low, high = _SOFT_TISSUE
    else:
        low, high = auto_window(image)
    return (high, low) if volume.inverted else (low, high)


def to_uint8(image: NDArray[Any], window: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Map intensities to 0-255 through a window (black, white); NaN becomes black.

    An 8-bit image without a window is returned as it is. A flat image becomes black.
    """
    if window is None and image.dtype == np.uint8:
        return image
    black, white = window or auto_window(image)
    if black == white:
        return np.zeros(image.shape, np.uint8)
    low, high = min(black, white), max(black, white)
    values = np.nan_to_num(image.astype(np.float64), nan=black, posinf=high, neginf=low)
    shares = (np.clip(values, low, high) - black) / (white - black)
    mapped: NDArray[np.uint8] = (shares * 255).astype(np.uint8)
    return mapped


def to_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(row, column) or (row, column, 3) as (row, column, 3)."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
