"""The picture a model is shown, and the one way between its pixels and those of the stored one.

Pictures are resized before any processor sees them, to sides that are multiples of 28: then the
processors of training and of vLLM leave them as they are. The size is what Qwen's own rule gives
for one fixed area, which is what an exported model's processor is set to: serving resizes
likewise, and coordinates mean the same everywhere (`Coordinates` "resized pixels").
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Box, Corners, Pair, Point
from napari_medreasoner.engines.reasoners.coordinates import space_of

__all__ = ["PATCH", "Scale", "resized"]

PATCH: Final = 28
"""Side of the square of pixels that is one token of a Qwen2.5-VL."""


class Scale:
    """Between a stored picture and the one that is shown.

    Parameters
    ----------
    stored : (int, int)
        Width and height.
    side : int
        The shown picture has about the area of a square of this side, a multiple of 28.

    Attributes
    ----------
    shown : (int, int)
        Width and height, multiples of 28.

    Raises
    ------
    ImageError
        When one side is 200 times the other.
    """

    def __init__(self, stored: tuple[int, int], side: int) -> None:
        width, height = stored
        try:
            down, across = smart_resize(
                height, width, factor=PATCH, min_pixels=side**2, max_pixels=side**2
            )
        except ValueError as error:
            raise ImageError(
                f"A picture of {width} x {height} pixels is too elongated for the model; crop it "
                "or leave it out."
            ) from error
        self.stored = stored
        self.shown: tuple[int, int] = across, down
        self._space = space_of("resized pixels", stored, self.shown)

    @property
    def tokens(self) -> int:
        """Tokens that the shown picture takes."""
        width, height = self.shown
        return width * height // PATCH**2

    def corners(self, box: Box) -> Corners:
        """Corners of a stored box in the shown picture, not rounded."""
        return self._space.box_from_image(box.corners)

    def pair(self, points: tuple[Point, Point]) -> Pair:
        """Two stored points in the shown picture, not rounded."""
        first, second = (self._space.point_from_image((p.x, p.y)) for p in points)
        return first, second

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
            Point(x=min(max(round(x), 0), width - 1), y=min(max(round(y), 0), height - 1))
            for x, y in self.pair(points)
        )
        return first, second

    def stored_corners(self, box: Box) -> tuple[int, int, int, int]:
        """A shown box in whole pixels of the stored picture."""
        x1, y1, x2, y2 = (round(value) for value in self._space.box_to_image(box.corners))
        return x1, y1, x2, y2

    def stored_points(self, points: tuple[Point, Point]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Two shown points in whole pixels of the stored picture."""
        back = (self._space.point_to_image((p.x, p.y)) for p in points)
        first, second = ((round(x), round(y)) for x, y in back)
        return first, second


def resized(image: NDArray[np.uint8], scale: Scale) -> Image.Image:
    """The picture as it is shown; `image` is of shape (row, column, 3)."""
    picture = Image.fromarray(image)
    if picture.size == scale.shown:
        return picture
    return picture.resize(scale.shown, Image.Resampling.BICUBIC)
