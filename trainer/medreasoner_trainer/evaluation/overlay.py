"""Truth and prediction drawn on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from medreasoner_trainer.data import Record
from medreasoner_trainer.evaluation.case import Case

__all__ = ["PREDICTED", "TRUE", "draw_case"]

TRUE: Final = (60, 170, 255)
PREDICTED: Final = (255, 140, 0)
"""Blue and orange are told apart by every kind of colour vision."""

_SIDE: Final = 384
_TINT: Final = 0.25

Colour = tuple[int, int, int]


def draw_case(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], record: Record, case: Case
) -> bytes:
    """Draw masks (outlined, the predicted one tinted), boxes and points; a JPEG of 384 pixels.

    Parameters
    ----------
    image : ndarray of uint8, shape (row, column, 3)
        The record's picture.
    mask : ndarray of bool, shape (row, column)
        Its true mask.
    record : Record
        The truth.
    case : Case
        The prediction.
    """
    height, width = mask.shape
    scale = _SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = np.asarray(Image.fromarray(image).resize(size)).astype(np.float64)
    if case.mask is not None:
        _lay(canvas, _resized(case.mask.unpack(), size), PREDICTED, _TINT)
    _lay(canvas, _resized(mask, size), TRUE, 0)
    picture = Image.fromarray(canvas.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    true_points = [(point.x, point.y) for point in record.points]
    _mark(pen, record.box.corners, true_points, TRUE, scale)
    _mark(pen, case.bbox, case.points or (), PREDICTED, scale)
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=82)
    return stream.getvalue()


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _lay(canvas: NDArray[np.float64], mask: NDArray[np.bool_], colour: Colour, tint: float) -> None:
    """Blend a mask into the canvas, its outline at full strength."""
    strength = np.where(mask, tint, 0.0)
    strength[mask & ~np.asarray(ndimage.binary_erosion(mask, iterations=2))] = 1.0
    canvas += (np.array(colour) - canvas) * strength[..., None]


def _mark(
    pen: ImageDraw.ImageDraw,
    corners: tuple[int, int, int, int] | None,
    points: Sequence[tuple[int, int]],
    colour: Colour,
    scale: float,
) -> None:
    if corners is not None:
        x1, y1, x2, y2 = (corner * scale for corner in corners)
        pen.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colour, width=1)
    for x, y in points:
        centre = ((x + 0.5) * scale, (y + 0.5) * scale)
        pen.circle(centre, 4, fill=colour, outline=(255, 255, 255))
