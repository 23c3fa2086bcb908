"""The picture a model is shown, and the one way between its pixels and those of the stored one.

Pictures are resized before any processor sees them, to sides that are multiples of 28: then the
processors of training, of vLLM and of serving all leave them as they are, and coordinates mean
the same to all three. Serving resizes likewise (`Coordinates` "resized pixels").
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.geometry import Box, Corners, Pair, Point

__all__ = ["PATCH", "Scale", "resized"]

PATCH: Final = 28
"""Side of the square of pixels that is one token of a Qwen2.5-VL."""


class Scale:
    """Between a stored picture and the one that is shown.

    Parameters
    ----------
    stored : (int, int)
        Width and height.
    longer_side : int
        Of the shown picture, a multiple of 28.

    Attributes
    ----------
    shown : (int, int)
        Width and height, multiples of 28.
    """

    def __init__(self, stored: tuple[int, int], longer_side: int) -> None:
        factor = longer_side / max(stored)
        width, height = (max(PATCH, round(side * factor / PATCH) * PATCH) for side in stored)
        self.stored = stored
        self.shown = width, height
        self._x, self._y = width / stored[0], height / stored[1]

    @property
    def tokens(self) -> int:
        """Tokens that the shown picture takes."""
        width, height = self.shown
        return width * height // PATCH**2

    def corners(self, box: Box) -> Corners:
        """Corners of a stored box in the shown picture, not rounded."""
        x1, y1, x2, y2 = box.corners
        return x1 * self._x, y1 * self._y, x2 * self._x, y2 * self._y

    def pair(self, points: tuple[Point, Point]) -> Pair:
        """Two stored points in the shown picture, not rounded."""
        first, second = points
        return (first.x * self._x, first.y * self._y), (second.x * self._x, second.y * self._y)

    def shown_box(self, box: Box) -> Box:
        """A stored box in whole pixels of the shown picture."""
        width, height = self.shown
        x1, y1, x2, y2 = (round(value) for value in self.corners(box))
        left, top = min(x1, width - 1), min(y1, height - 1)
        return Box.from_corners(left, top, max(x2, left + 1), max(y2, top + 1))

    def shown_points(self, points: tuple[Point, Point]) -> tuple[Point, Point]:
        """Two stored points in whole pixels of the shown picture."""
        width, height = self.shown
        first, second = (
            Point(x=min(round(x), width - 1), y=min(round(y), height - 1))
            for x, y in self.pair(points)
        )
        return first, second

    def stored_corners(self, box: Box) -> tuple[int, int, int, int]:
        """A shown box in whole pixels of the stored picture."""
        x1, y1, x2, y2 = box.corners
        return (
            round(x1 / self._x),
            round(y1 / self._y),
            round(x2 / self._x),
            round(y2 / self._y),
        )

    def stored_points(self, points: tuple[Point, Point]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Two shown points in whole pixels of the stored picture."""
        first, second = ((round(p.x / self._x), round(p.y / self._y)) for p in points)
        return first, second


def resized(image: NDArray[np.uint8], scale: Scale) -> Image.Image:
    """The picture as it is shown; `image` is of shape (row, column, 3)."""
    picture = Image.fromarray(image)
    if picture.size == scale.shown:
        return picture
    return picture.resize(scale.shown, Image.Resampling.BICUBIC)
