"""Random changes of grey levels and colours, as scanners, windows and stains make them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["coloured"]

_GREY: Final = 0.01
"""Mean difference between the colours of a pixel, below which a picture is grey, and stays so."""


def coloured(rgb: NDArray[np.uint8], draw: Generator) -> NDArray[np.uint8]:
    """Change a picture of shape (row, column, 3)."""
    values = rgb.astype(np.float32) / 255
    if draw.random() < 0.2:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    many_colours = float(np.ptp(values, axis=2).mean()) > _GREY
    if many_colours and draw.random() < 0.4:
        values = values * np.exp(draw.normal(0, 0.1, 3).astype(np.float32))
    if draw.random() < 0.5:
        values = np.clip(values, 0, None) ** np.float32(np.exp(draw.normal(0, 0.3)))
    if draw.random() < 0.1:
        values = 1 - values
    if draw.random() < 0.3:
        values = values * _slope(values.shape[0], values.shape[1], draw)
    if draw.random() < 0.3:
        grain = draw.normal(0, draw.uniform(0.02, 0.3) * values.std(), (*values.shape[:2], 1))
        values = values + grain.astype(np.float32)
    changed = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    if draw.random() < 0.2:
        blurred = Image.fromarray(changed).filter(ImageFilter.GaussianBlur(draw.uniform(0.4, 1.5)))
        changed = np.asarray(blurred)
    return changed


def _slope(rows: int, columns: int, draw: Generator) -> NDArray[np.float32]:
    """Brightness that rises across the picture."""
    across, down = draw.normal(0, 0.15, 2)
    plane = 1 + down * np.linspace(-1, 1, rows)[:, None] + across * np.linspace(-1, 1, columns)
    slope: NDArray[np.float32] = plane[..., None].astype(np.float32)
    return slope
