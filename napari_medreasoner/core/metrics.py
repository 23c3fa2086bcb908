"""Overlap measures of boxes, key points and masks."""

from __future__ import annotations

from math import atan2, hypot, pi, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Box, Corners, Pair, Point

__all__ = [
    "box_iou",
    "circles_dice",
    "circles_dice_released",
    "corners_iou",
    "dice",
    "points_dice",
    "points_dice_released",
]

_MARGIN: Final = 1e-5
"""What the released code adds to a radius, so that no circle is empty."""


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two max-exclusive boxes, 0 to 1 (paper, Eq. 2)."""
    return corners_iou(a.corners, b.corners)


def corners_iou(a: Corners, b: Corners, extent: float = 0.0) -> float:
    """Intersection over union of two boxes of any numbers, 0 to 1 (paper, Eq. 2).

    Parameters
    ----------
    a, b : tuple of four float
        x1, y1, x2, y2; a box whose corners are out of order shares nothing.
    extent : float
        Added to every width and height: 1 where the maximum is inclusive.
    """
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    width = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1) + extent
    height = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1) + extent
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    area_a = (ax2 - ax1 + extent) * (ay2 - ay1 + extent)
    return shared / (area_a + (bx2 - bx1 + extent) * (by2 - by1 + extent) - shared)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice coefficient 2|A∩B| / (|A|+|B|) of two masks of one shape, 0 to 1.

    Two empty masks agree, so they score 1.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"masks of different shapes: {a.shape} and {b.shape}")
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0


def _circle(points: Pair) -> tuple[float, float, float]:
    """Centre and radius of the circle that has the two points as its diameter."""
    (ax, ay), (bx, by) = points
    return (ax + bx) / 2, (ay + by) / 2, hypot(ax - bx, ay - by) / 2


def _lens_area(distance: float, r: float, s: float) -> float:
    """Area shared by two circles of radius r and s whose centres are `distance` apart."""
    if distance >= r + s:
        return 0.0
    if distance <= abs(r - s):
        return pi * min(r, s) ** 2
    d2, r2, s2 = distance * distance, r * r, s * s
    kite = (-distance + r + s) * (distance + r - s) * (distance - r + s) * (distance + r + s)
    # Of nearly tangent circles rounding can make it a hair negative. The half angles come from
    # atan2, which no rounding can push out of its domain as it can acos.
    twice = sqrt(kite) if kite > 0 else 0.0
    return r2 * atan2(twice, d2 + r2 - s2) + s2 * atan2(twice, d2 + s2 - r2) - twice / 2


def circles_dice(a: Pair, b: Pair) -> float:
    """Dice of the two circles that have each pair as diameter; see `points_dice`."""
    ax, ay, ar = _circle(a)
    bx, by, br = _circle(b)
    total = pi * (ar**2 + br**2)
    if total == 0:
        return float((ax, ay) == (bx, by))
    return 2 * _lens_area(hypot(ax - bx, ay - by), ar, br) / total


def circles_dice_released(a: Pair, b: Pair) -> float:
    """Twice the Jaccard index of those circles; see `points_dice_released`."""
    ax, ay, ar = _circle(a)
    bx, by, br = _circle(b)
    ar, br = ar + _MARGIN, br + _MARGIN
    shared = _lens_area(hypot(ax - bx, ay - by), ar, br)
    return 2 * shared / (pi * (ar**2 + br**2) - shared)


def points_dice(a: tuple[Point, Point], b: tuple[Point, Point]) -> float:
    """pDice: Dice of the two circles that have each pair of key points as diameter.

    Paper, Eq. 5 and 18: 2·Area(A∩B) / (Area(A)+Area(B)), 0 to 1; a pair is unordered. Two
    pairs that are each one and the same pixel have no area: they score 1 when they
    coincide, else 0.
    """
    return circles_dice(_pair(a), _pair(b))


def points_dice_released(a: tuple[Point, Point], b: tuple[Point, Point]) -> float:
    """The pDice of the authors' released code, for comparison with their figures.

    Twice the Jaccard index of the circles, 0 to 2, with 1e-5 pixel added to each radius.
    """
    return circles_dice_released(_pair(a), _pair(b))


def _pair(points: tuple[Point, Point]) -> Pair:
    a, b = points
    return (a.x, a.y), (b.x, b.y)
