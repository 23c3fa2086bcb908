"""The true box and points a completion is judged by."""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

from napari_medreasoner.core.errors import InputError
from napari_medreasoner.core.geometry import Corners, Pair

__all__ = ["Truth"]


class Truth(NamedTuple):
    """What the right answer is, in pixels of the image shown to the model.

    Attributes
    ----------
    box : tuple of four float
        x1, y1, x2, y2.
    points : tuple of two (float, float)
        (x, y) of each, in any order.
    image_size : (int, int) or None
        Width and height of the image; None: 840 x 840, as in the authors' data.
    """

    box: Corners
    points: Pair
    image_size: tuple[int, int] | None = None

    def checked(self) -> Truth:
        """The same, once it is known that it can be a truth.

        Raises
        ------
        InputError
            When the box has no area, a number is not finite, or the image has no size.
        """
        if not all(map(isfinite, (*self.box, *self.points[0], *self.points[1]))):
            raise InputError("The true box or points hold a number that is not finite.")
        if self.box[0] >= self.box[2] or self.box[1] >= self.box[3]:
            raise InputError(f"The true box {list(self.box)} has no area.")
        if self.image_size is not None and min(self.image_size) < 1:
            raise InputError(f"An image of {self.image_size} pixels has no size.")
        return self
