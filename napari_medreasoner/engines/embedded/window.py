"""What the embedded segmenter's network sees: a square window of a picture, and prompts in it.

Training builds its windows with these very functions, so that both see the same pixels.
Coordinates in a window are pixels of its `SIDE` x `SIDE` grid, 0 being the left (upper) edge of
the first pixel; its planes are (channel, row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.geometry import Box, Corners, Point

__all__ = ["CHANNELS", "SIDE", "Affine", "Window", "appearance", "prompt_planes", "sampled"]

SIDE: Final = 160
"""Pixels along each side of what the network sees."""

CHANNELS: Final = 8
"""Red, green, blue, inside the picture, box, positive points, negative points, previous mask."""

_SPREAD: Final = 4.0
"""Standard deviation of the spot that stands for a point, in pixels of the window."""

_LEAST_CONTRAST: Final = 2.0
"""Smallest divisor of grey levels (of 255): a flat window stays flat, and is not all noise."""

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f: window (x, y) lies at picture (a x + b y + c, d x + e y + f)."""

Planes = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A square of a picture, which may reach beyond its edges.

    Attributes
    ----------
    x, y : float
        Left and upper edge in the picture, in pixels.
    side : float
        Of the square, in pixels of the picture.
    """

    x: float
    y: float
    side: float

    @classmethod
    def around(cls, box: Box, margin: float) -> Window:
        """The square with the box in its middle, `margin` times its longer side wide."""
        side = margin * max(box.width, box.height, 4)
        return cls((box.x1 + box.x2 - side) / 2, (box.y1 + box.y2 - side) / 2, side)

    @property
    def affine(self) -> Affine:
        """Where the window's pixels lie in the picture."""
        step = self.side / SIDE
        return step, 0.0, self.x, 0.0, step, self.y

    def corners(self, box: Box) -> Corners:
        """A box of the picture in the window."""
        scale = SIDE / self.side
        return (
            (box.x1 - self.x) * scale,
            (box.y1 - self.y) * scale,
            (box.x2 - self.x) * scale,
            (box.y2 - self.y) * scale,
        )

    def spots(self, points: Sequence[Point], *, positive: bool) -> list[tuple[float, float]]:
        """Centres of the positive or of the negative points of the picture in the window."""
        scale = SIDE / self.side
        return [
            ((point.x + 0.5 - self.x) * scale, (point.y + 0.5 - self.y) * scale)
            for point in points
            if point.positive == positive
        ]

    def put(self, plane: Planes, width: int, height: int, outside: float) -> Planes:
        """Resample a plane of the window to the picture; `outside` is what lies beyond it."""
        scale = SIDE / self.side
        back = (scale, 0.0, -self.x * scale, 0.0, scale, -self.y * scale)
        image = Image.fromarray(np.pad(plane, 1, constant_values=outside))
        moved = (*back[:2], back[2] + 1, *back[3:5], back[5] + 1)
        return np.asarray(
            image.transform(
                (width, height),
                Image.Transform.AFFINE,
                moved,
                Image.Resampling.BILINEAR,
                fillcolor=outside,
            )
        )


def sampled(picture: Image.Image, affine: Affine) -> Image.Image:
    """Resample a picture to a window, averaging where it shrinks; zero beyond its edges."""
    a, b, c, d, e, f = affine
    shrink = max(1, int(np.hypot(a, d)))
    if shrink > 1:
        picture = picture.reduce(shrink)
        a, b, c, d, e, f = (value / shrink for value in affine)
    return picture.transform(
        (SIDE, SIDE), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )


def appearance(rgb: NDArray[np.uint8], inside: NDArray[np.bool_]) -> Planes:
    """Colours with mean 0 and deviation 1 over the window, and where the picture is.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (SIDE, SIDE, 3)
        From `sampled`.
    inside : ndarray of bool, shape (SIDE, SIDE)
        False beyond the edges of the picture.

    Returns
    -------
    ndarray of float32, shape (4, SIDE, SIDE)
        The first four channels; all three colours share one mean and one deviation, so that
        grey stays grey.
    """
    values = rgb.astype(np.float32)
    seen = values[inside] if inside.any() else values.reshape(-1, 3)
    values = (values - seen.mean()) / max(float(seen.std()), _LEAST_CONTRAST)
    values[~inside] = 0
    return np.concatenate([values.transpose(2, 0, 1), inside[None].astype(np.float32)])


def prompt_planes(
    box: Corners | None,
    positive: Sequence[tuple[float, float]],
    negative: Sequence[tuple[float, float]],
    previous: Planes | None,
) -> Planes:
    """Paint prompts.

    Parameters
    ----------
    box : tuple of float or None
        In the window; 1 inside it, -1 outside, 0 everywhere when there is none.
    positive, negative : sequence of (float, float)
        (x, y) in the window.
    previous : ndarray of float32, shape (SIDE, SIDE), or None
        Probability of the mask so far.

    Returns
    -------
    ndarray of float32, shape (4, SIDE, SIDE)
        The last four channels.
    """
    planes = np.zeros((4, SIDE, SIDE), np.float32)
    if box is not None:
        planes[0] = 2 * np.outer(_share(box[1], box[3]), _share(box[0], box[2])) - 1
    planes[1], planes[2] = _painted(positive), _painted(negative)
    if previous is not None:
        planes[3] = 2 * previous - 1
    return planes


def _share(low: float, high: float) -> Planes:
    """How much of each pixel along an axis lies between two edges."""
    edge = np.arange(SIDE, dtype=np.float32)
    share: Planes = np.clip(np.minimum(edge + 1, high) - np.maximum(edge, low), 0, 1)
    return share


def _painted(spots: Sequence[tuple[float, float]]) -> Planes:
    plane = np.zeros((SIDE, SIDE), np.float32)
    centre = np.arange(SIDE, dtype=np.float32) + 0.5
    for x, y in spots:
        across, down = (np.exp(-(((centre - at) / _SPREAD) ** 2) / 2) for at in (x, y))
        np.maximum(plane, np.outer(down, across), out=plane)
    return plane
