"""What models see: intensities mapped to an 8-bit picture by one grey window."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.imaging.volume import Volume

__all__ = [
    "PRESETS",
    "auto_window",
    "default_window",
    "model_picture",
    "preset_window",
    "presets_for",
    "to_rgb",
    "to_uint8",
]

PRESETS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "lung": (-600.0, 1500.0),
        "mediastinum": (50.0, 350.0),
        "abdomen": (40.0, 400.0),
        "bone": (400.0, 1800.0),
        "brain": (40.0, 80.0),
    }
)
"""Usual windows for CT: level and width in Hounsfield units.

Source: the typical windows of radiology textbooks, as in Hofer, CT Teaching Manual (Thieme), and
Radiopaedia, "Windowing (CT)"; departments differ by some tens of units.
"""

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


def preset_window(name: str) -> tuple[float, float]:
    """(black, white) of one of `PRESETS`, in Hounsfield units: level -+ width / 2."""
    level, width = PRESETS[name]
    return level - width / 2, level + width / 2


def presets_for(volume: Volume) -> Mapping[str, tuple[float, float]]:
    """`PRESETS` for a CT in Hounsfield units; none for any other image, where they mean nothing."""
    in_units = volume.modality == "CT" and bool((volume.array < _AIR).any())
    return PRESETS if in_units else MappingProxyType({})


def default_window(volume: Volume) -> tuple[float, float]:
    """Intensities shown as black and as white, for an image of which the user has said nothing.

    The window the file asks for; else the full range of an 8-bit picture, the abdominal
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
    elif presets_for(volume):
        low, high = preset_window("abdomen")
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


def model_picture(
    image_slice: NDArray[Any], window: tuple[float, float] | None, side: int
) -> NDArray[np.uint8]:
    """What the models see of a slice, small enough to show beside it.

    Parameters
    ----------
    image_slice : ndarray, shape (row, column) or (row, column, 3)
        Intensities or colours.
    window : (float, float) or None
        Black and white, as for `to_uint8`.
    side : int
        Pixels that the longest side may have; a picture is shrunk, by the mean of the area
        that each pixel covers, and never enlarged.

    Returns
    -------
    ndarray of uint8, shape (row, column, 3)
    """
    picture = to_rgb(to_uint8(image_slice, window))
    longest = max(picture.shape[:2])
    if longest <= side:
        return picture
    rows, columns = (max(1, round(size * side / longest)) for size in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BOX))
