"""The part of a picture or volume around the prompts, at the size an engine works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.geometry import Box, Point

__all__ = ["Crop", "extent_of"]

_REACH: Final = 1.15
_SLENDER: Final = 0.7
"""Half sides of the guessed box: 1.15 times the farthest positive point's distance along each
axis, which is taken to be at least 0.7 of the whole distance (validation split)."""

_LONE_POINT: Final = 0.08
"""Half a side of the guessed box around a lone click, over the image's shorter side."""


def extent_of(points: Sequence[Point], width: int, height: int) -> Box:
    """Guess the box of a target from positive points alone.

    Parameters
    ----------
    points : sequence of Point
        Inside the image; the first one is taken as the middle when there are two.
    width, height : int
        Of the image, in pixels.
    """
    x, y = points[0].x, points[0].y
    across = max(abs(point.x - x) for point in points)
    down = max(abs(point.y - y) for point in points)
    least = max(_SLENDER * hypot(across, down), 1.0)
    if len(points) == 1:
        least = max(_LONE_POINT * min(width, height), 1.0)
    right, below = (round(_REACH * max(reach, least)) for reach in (across, down))
    around = Box.from_corners(x - right, y - below, x + right + 1, y + below + 1)
    return around.clipped(width, height)


@dataclass(frozen=True, slots=True)
class Crop:
    """A box cut out of a picture and resampled.

    Attributes
    ----------
    window : Box
        Inside the picture.
    rows, columns : int
        After resampling; never more than the window has.
    """

    window: Box
    rows: int
    columns: int

    @classmethod
    def around(cls, box: Box, width: int, height: int, margin: float, side: int) -> Crop:
        """Cut out a box with a margin (share of its longer side), at most `side` pixels long."""
        padded = box.padded(max(2, round(margin * max(box.width, box.height))))
        window = padded.clipped(width, height)
        scale = min(1.0, side / max(window.width, window.height))
        return cls(
            window, max(1, round(window.height * scale)), max(1, round(window.width * scale))
        )

    def take(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Values 0..1 of shape (rows, columns, 3) of a picture of shape (row, column, 3)."""
        image = Image.fromarray(np.ascontiguousarray(picture[self.window.slices]))
        small = image.resize((self.columns, self.rows), Image.Resampling.BILINEAR)
        return np.asarray(small, np.float64) / 255

    def centres(self) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
        """Picture coordinates of the resampled pixels' centres.

        Returns
        -------
        tuple of ndarray
            y of shape (rows, 1) and x of shape (1, columns); the centre of pixel 0 is 0.
        """
        y = (np.arange(self.rows) + 0.5) * self.window.height / self.rows - 0.5 + self.window.y1
        x = (np.arange(self.columns) + 0.5) * self.window.width / self.columns
        return y[:, None], (x - 0.5 + self.window.x1)[None, :]

    def take_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the picture at the crop's size."""
        cut = mask[self.window.slices].astype(np.float32)
        return _resized(cut, self.rows, self.columns) > 0.5

    def put(self, values: NDArray[np.floating[Any]], shape: tuple[int, int]) -> NDArray[np.float64]:
        """Resample back to the picture's size; zero outside the window."""
        whole = np.zeros(shape)
        whole[self.window.slices] = _resized(values, self.window.height, self.window.width)
        return whole


def _resized(plane: NDArray[np.floating[Any]], rows: int, columns: int) -> NDArray[np.float32]:
    """Resample a plane, averaging when it shrinks."""
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
