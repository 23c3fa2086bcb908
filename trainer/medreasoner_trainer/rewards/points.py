"""Rewards for a pair of points, before smoothing; a pair has no order.

The overlap itself is `circles_dice` or `circles_dice_released` of
`napari_medreasoner.core.metrics`.
"""

from __future__ import annotations

from math import hypot

from napari_medreasoner.core.geometry import Pair

__all__ = [
    "angle_cosine",
    "city_block_distance",
    "collapsed_valid",
    "spread",
    "spread_valid",
    "straight_distance",
]


def city_block_distance(pair: Pair, truth: Pair) -> float:
    """Mean city-block distance of corresponding points (paper, Eq. 6 and 19), 0 or more.

    The paper leaves open which point corresponds to which: the nearer pairing counts.
    """
    (ax, ay), (bx, by) = pair
    (px, py), (qx, qy) = truth
    straight = abs(ax - px) + abs(ay - py) + abs(bx - qx) + abs(by - qy)
    crossed = abs(ax - qx) + abs(ay - qy) + abs(bx - px) + abs(by - py)
    return (straight if straight < crossed else crossed) / 2


def straight_distance(pair: Pair, truth: Pair) -> float:
    """Mean straight distance of corresponding points, in the nearer pairing."""
    (ax, ay), (bx, by) = pair
    (px, py), (qx, qy) = truth
    straight = hypot(ax - px, ay - py) + hypot(bx - qx, by - qy)
    crossed = hypot(ax - qx, ay - qy) + hypot(bx - px, by - py)
    return min(straight, crossed) / 2


def angle_cosine(pair: Pair, truth: Pair) -> float:
    """|cos| of the angle between the two connecting lines (paper, Eq. 7 and 20), 0 to 1.

    0 where two points coincide, since they give no direction.
    """
    (ax, ay), (bx, by) = pair
    (px, py), (qx, qy) = truth
    ux, uy, vx, vy = bx - ax, by - ay, qx - px, qy - py
    lengths = hypot(ux, uy) * hypot(vx, vy)
    return min(abs(ux * vx + uy * vy) / lengths, 1.0) if lengths else 0.0


def spread(pair: Pair) -> float:
    """Distance between the two points."""
    (ax, ay), (bx, by) = pair
    return hypot(ax - bx, ay - by)


def collapsed_valid(pair: Pair, least: float) -> float:
    """1 for points farther apart than `least`, else 0.5."""
    return 1.0 if spread(pair) > least else 0.5


def spread_valid(pair: Pair, truth: Pair) -> float:
    """1 for points between half and twice as far apart as the true ones, else 0.5."""
    true = spread(truth)
    return 1.0 if 0.5 * true < spread(pair) < 2 * true else 0.5
