"""What models see: intensities mapped to an 8-bit picture by one grey window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError

__all__ = ["auto_window", "to_rgb", "to_uint8"]


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


def to_uint8(image: NDArray[Any], window: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Map intensities to 0-255 through a window (low, high); NaN becomes the low end.

    An 8-bit image without a window is returned as it is. A flat image becomes black.
    """
    if window is None and image.dtype == np.uint8:
        return image
    low, high = window or auto_window(image)
    scale = 255.0 / (high - low) if high > low else 0.0
    values = np.nan_to_num(image.astype(np.float32), nan=low, posinf=high, neginf=low)
    mapped: NDArray[np.uint8] = np.clip((values - low) * scale, 0, 255).astype(np.uint8)
    return mapped


def to_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(row, column) or (row, column, 3) as (row, column, 3)."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
