"""Rewards for a box, before smoothing; each is a pure function of corners x1, y1, x2, y2.

The predicted box must have an area (`has_area`); the true one always has. The overlap itself
is `napari_medreasoner.core.metrics.corners_iou`.
"""

from __future__ import annotations

from math import hypot, log

from napari_medreasoner.core.geometry import Corners, Pair

__all__ = [
    "alignment_distance",
    "area_valid",
    "diagonal",
    "has_area",
    "inside_valid",
    "mean_distance",
    "scale_distance",
]


def has_area(box: Corners) -> bool:
    """Whether the corners are in order and the box is not a line."""
    return box[0] < box[2] and box[1] < box[3]


def diagonal(box: Corners) -> float:
    """Length of the diagonal, in the unit of the corners."""
    return hypot(box[2] - box[0], box[3] - box[1])


def mean_distance(box: Corners, truth: Corners) -> float:
    """Mean absolute difference of the four coordinates (paper, Eq. 3 and 16, as printed)."""
    ax1, ay1, ax2, ay2 = box
    bx1, by1, bx2, by2 = truth
    return (abs(ax1 - bx1) + abs(ay1 - by1) + abs(ax2 - bx2) + abs(ay2 - by2)) / 4


def alignment_distance(box: Corners, truth: Corners) -> float:
    """That distance over the diagonal of the true box, as the text around Eq. 3 asks."""
    return mean_distance(box, truth) / diagonal(truth)


def scale_distance(box: Corners, truth: Corners) -> float:
    """How far area A and aspect ratio R are off: hypot(Δ ln A, Δ ln R) (paper, Eq. 4 and 17)."""
    across = log(box[2] - box[0]) - log(truth[2] - truth[0])
    down = log(box[3] - box[1]) - log(truth[3] - truth[1])
    return hypot(across + down, across - down)


def inside_valid(points: Pair, box: Corners, least: float) -> float:
    """Validity of points in a box: halved for each point outside, but `least` at the least."""
    x1, y1, x2, y2 = box
    valid = 1.0
    for x, y in points:
        if not (x1 <= x <= x2 and y1 <= y <= y2):
            valid /= 2
    return valid if valid > least else least


def area_valid(box: Corners, truth: Corners) -> float:
    """1 for an area between half and twice the true one, else 0.5."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    true = (truth[2] - truth[0]) * (truth[3] - truth[1])
    return 1.0 if 0.5 * true < area < 2 * true else 0.5
