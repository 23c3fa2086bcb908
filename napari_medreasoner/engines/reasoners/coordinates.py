"""The one way between pixels of an image and the numbers a vision-language model writes.

A convention is one of `Coordinates`; a `Space` is a convention for one image. Corners of a
box are places on the edges of pixels (0 is the left edge of the image, its width the right
one). A point in pixels is the index of a pixel and so stands for its centre, half a pixel
further; in fractions or thousandths it is a place like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from napari_medreasoner.core.geometry import Corners
from napari_medreasoner.engines.models.card import Coordinates

__all__ = ["DESCRIPTIONS", "INSTRUCTIONS", "Space", "sides_in_patches", "space_of"]

DESCRIPTIONS: Final[dict[Coordinates, str]] = {
    "pixels": "pixels of the given image",
    "resized pixels": "pixels of the given image; it writes pixels of the resized one",
    "norm1000": "pixels of the given image; it writes thousandths of the sides",
    "norm1000 yx": "pixels of the given image; it writes thousandths of the sides, y first",
    "norm1": "pixels of the given image; it writes fractions of the sides",
}
"""What `EngineInfo.coordinates` says of a reasoner that writes in a convention."""

INSTRUCTIONS: Final[dict[Coordinates, str]] = {
    "norm1": "Instead of pixels, write fractions of the image's width and height, from 0 to 1.",
    "norm1000 yx": "Write y before x in every place: [y1, x1, y2, x2] and [y, x].",
}
"""What a prompt must add where a template that speaks of x, y and whole pixels misleads."""


_PATCH: Final = 28
_MOST_PATCHES: Final = 1280
_FEWEST_PATCHES: Final = 4


@dataclass(frozen=True, slots=True)
class Space:
    """How a model writes places in one image.

    Attributes
    ----------
    image : tuple of int
        Width and height in pixels.
    size : tuple of int
        Width and height in the model's unit.
    pixels : bool
        Whether that unit is a pixel, so that a point is an index.
    y_first : bool
        Whether y is written before x.
    """

    image: tuple[int, int]
    size: tuple[int, int]
    pixels: bool = True
    y_first: bool = False

    def point_to_image(self, written: tuple[float, float]) -> tuple[float, float]:
        """(x, y) of a point in pixels of the image, from the two numbers in written order."""
        x, y = written[::-1] if self.y_first else written
        half = 0.5 if self.pixels else 0.0
        (width, height), (across, down) = self.image, self.size
        return (x + half) * width / across - 0.5, (y + half) * height / down - 0.5

    def point_from_image(self, point: tuple[float, float]) -> tuple[float, float]:
        """The two numbers in written order, from (x, y) of a point in pixels of the image."""
        half = 0.5 if self.pixels else 0.0
        (width, height), (across, down) = self.image, self.size
        x = (point[0] + 0.5) * across / width - half
        y = (point[1] + 0.5) * down / height - half
        return (y, x) if self.y_first else (x, y)

    def box_to_image(self, written: Corners) -> Corners:
        """x1, y1, x2, y2 in pixels of the image, from the four numbers in written order."""
        x1, y1, x2, y2 = _swapped(written) if self.y_first else written
        (width, height), (across, down) = self.image, self.size
        return x1 * width / across, y1 * height / down, x2 * width / across, y2 * height / down

    def box_from_image(self, corners: Corners) -> Corners:
        """The four numbers in written order, from x1, y1, x2, y2 in pixels of the image."""
        x1, y1, x2, y2 = corners
        (width, height), (across, down) = self.image, self.size
        box = (x1 * across / width, y1 * down / height, x2 * across / width, y2 * down / height)
        return _swapped(box) if self.y_first else box


def _swapped(corners: Corners) -> Corners:
    first, second, third, fourth = corners
    return second, first, fourth, third


def space_of(convention: Coordinates, image: tuple[int, int], resized: tuple[int, int]) -> Space:
    """Find how a convention writes places in one image.

    Parameters
    ----------
    convention : Coordinates
        The model's; not "none".
    image : tuple of int
        Width and height in pixels.
    resized : tuple of int
        Width and height of what the model's processor makes of the image; other conventions
        than "resized pixels" do not look at it.
    """
    if convention == "resized pixels":
        return Space(image, resized)
    if convention == "norm1000":
        return Space(image, (1000, 1000), pixels=False)
    if convention == "norm1000 yx":
        return Space(image, (1000, 1000), pixels=False, y_first=True)
    if convention == "norm1":
        return Space(image, (1, 1), pixels=False)
    return Space(image, image)


def sides_in_patches(width: int, height: int) -> tuple[int, int]:
    """Width and height in whole merged patches of Qwen2.5-VL, which its processor leaves alone.

    Multiples of 28 pixels; together at most 1280 of them squared (its model card's advice), and
    at least 4, below which it enlarges a picture.
    """
    area = width * height / _PATCH**2
    scale = min(1.0, (_MOST_PATCHES / area) ** 0.5)
    across, down = (max(1, int(side * scale / _PATCH)) for side in (width, height))
    if across * down < _FEWEST_PATCHES:
        scale = (_FEWEST_PATCHES / area) ** 0.5
        across, down = (math.ceil(side * scale / _PATCH) for side in (width, height))
    return across * _PATCH, down * _PATCH
