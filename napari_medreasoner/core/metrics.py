"""Overlap measures of boxes, key points and masks."""

from __future__ import annotations

from math import acos, hypot, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Box, Point

__all__ = ["box_iou", "dice", "points_dice"]


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two max-exclusive boxes, 0 to 1 (paper, Eq. 1)."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    shared = max(width, 0) * max(height, 0)
    return shared / (a.area + b.area - shared)


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


def _circle(points: tuple[Point, Point]) -> tuple[float, float, float]:
    """Centre and radius of the circle that has the two points as its diameter."""
    (ax, ay), (bx, by) = ((point.x, point.y) for point in points)
    return (ax + bx) / 2, (ay + by) / 2, hypot(ax - bx, ay - by) / 2


def _lens_area(distance: float, r: float, s: float) -> float:
    """Area shared by two circles of radius r and s whose centres are `distance` apart."""
    if distance >= r + s:
        return 0.0
    if distance <= abs(r - s):
        return pi * min(r, s) ** 2
    # Rounding can push the cosines of nearly tangent circles a hair outside [-1, 1].
    cos_r = min(1.0, max(-1.0, (distance**2 + r**2 - s**2) / (2 * distance * r)))
    cos_s = min(1.0, max(-1.0, (distance**2 + s**2 - r**2) / (2 * distance * s)))
    kite = (-distance + r + s) * (distance + r - s) * (distance - r + s) * (distance + r + s)
    return r**2 * acos(cos_r) + s**2 * acos(cos_s) - 0.5 * sqrt(max(kite, 0.0))


def points_dice(a: tuple[Point, Point], b: tuple[Point, Point]) -> float:
    """pDice: Dice of the two circles that have each pair of key points as diameter.

    Paper, Eq. 5 and 18: 2·Area(A∩B) / (Area(A)+Area(B)), 0 to 1; a pair is unordered. Two
    pairs that are each one and the same pixel have no area: they score 1 when they
    coincide, else 0.
    """
    ax, ay, ar = _circle(a)
    bx, by, br = _circle(b)
    total = pi * (ar**2 + br**2)
    if total == 0:
        return float((ax, ay) == (bx, by))
    return 2 * _lens_area(hypot(ax - bx, ay - by), ar, br) / total
