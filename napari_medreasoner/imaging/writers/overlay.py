"""A picture with box, key points and mask drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.imaging.writers.atomic import write_bytes

__all__ = ["MASK_COLOUR", "draw_overlay", "write_overlay"]

MASK_COLOUR: Final = (0, 200, 160)
_BOX_COLOUR: Final = (255, 200, 0)
_POSITIVE: Final = (80, 220, 80)
_NEGATIVE: Final = (230, 70, 70)
_MIN_SIDE: Final = 640
_FILL: Final = 0.3


def _tint(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Blend the mask in, its rim at full strength."""
    strength = np.where(mask, _FILL, 0.0)
    strength[mask & ~np.asarray(ndimage.binary_erosion(mask, iterations=2))] = 1.0
    blended = picture * (1 - strength[..., None]) + np.array(MASK_COLOUR) * strength[..., None]
    tinted: NDArray[np.uint8] = blended.astype(np.uint8)
    return tinted


def draw_overlay(
    picture: NDArray[np.uint8],
    box: Box | None,
    points: Sequence[Point],
    mask: NDArray[np.bool_] | None,
) -> bytes:
    """Draw a finding on the picture it was made from.

    Parameters
    ----------
    picture : ndarray of uint8, shape (row, column, 3)
        As the models saw it. Small ones are enlarged by a whole factor.
    box, points : Box or None, sequence of Point
        Pixels of the picture.
    mask : ndarray of bool, shape (row, column), or None
        Tinted, its rim drawn at full strength.

    Returns
    -------
    bytes
        A PNG file.
    """
    zoom = max(1, -(-_MIN_SIDE // max(picture.shape[:2])))
    shown = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if mask is not None:
        shown = _tint(shown, mask.repeat(zoom, axis=0).repeat(zoom, axis=1))
    image = Image.fromarray(shown)
    pen = ImageDraw.Draw(image)
    line = max(2, max(image.size) // 400)
    if box is not None:
        corners = (box.x1 * zoom, box.y1 * zoom, box.x2 * zoom - 1, box.y2 * zoom - 1)
        pen.rectangle(corners, outline=_BOX_COLOUR, width=line)
    for point in points:
        x, y = (point.x + 0.5) * zoom, (point.y + 0.5) * zoom
        colour = _POSITIVE if point.positive else _NEGATIVE
        pen.circle((x, y), 3 * line, fill=colour, outline=(255, 255, 255), width=max(1, line // 2))
    stream = BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def write_overlay(
    path: Path,
    picture: NDArray[np.uint8],
    box: Box | None,
    points: Sequence[Point],
    mask: NDArray[np.bool_] | None,
) -> None:
    """Write what `draw_overlay` draws to a PNG file, atomically.

    Raises
    ------
    ExportError
        When the file cannot be written; one that was there before is unchanged.
    """
    write_bytes(path, draw_overlay(picture, box, points, mask))
