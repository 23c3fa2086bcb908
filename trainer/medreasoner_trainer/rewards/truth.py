"""The true box and points a completion is judged by."""

from __future__ import annotations

from typing import Final, NamedTuple

from napari_medreasoner.core.errors import InputError
from napari_medreasoner.core.geometry import Corners, Pair

__all__ = ["Truth"]

_FAR: Final = 2**31
_LEAST_SIDE: Final = 1e-3
"""Pixels."""


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
            When a number lies far outside any image, the box has no area, or the image no size.
        """
        x1, y1, x2, y2 = self.box
        if not all(abs(number) < _FAR for number in (*self.box, *self.points[0], *self.points[1])):
            raise InputError("The true box or points hold a number far outside any image.")
        if min(x2 - x1, y2 - y1) < _LEAST_SIDE:
            raise InputError(f"The true box {list(self.box)} has no area.")
        if self.image_size is not None and not all(0 < side < _FAR for side in self.image_size):
            raise InputError(f"No image has the size {list(self.image_size)}.")
        return self
