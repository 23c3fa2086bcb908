"""Prompts as users give them: loose boxes, clicks inside, clicks where the mask is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from napari_medreasoner.core.geometry import Corners
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from napari_medreasoner.engines.embedded.window import SIDE, prompt_planes

__all__ = ["Given", "click", "given_at_random"]

Bools = NDArray[np.bool_]
Planes = NDArray[np.float32]
Spot = tuple[float, float]

_TIGHT: Final = 0.5
"""Share of boxes that a careful user (or the truth) gives; the others are off by more."""

_NEAT, _LOOSE = 0.015, 0.08
"""Deviation of a box's edges, over its side."""

_MOST_POINTS: Final = 4


@dataclass(frozen=True)
class Given:
    """What the network is told, in the window."""

    box: Corners | None = None
    positive: tuple[Spot, ...] = ()
    negative: tuple[Spot, ...] = ()
    previous: Planes | None = None

    @property
    def planes(self) -> Planes:
        """As the network reads it."""
        return prompt_planes(self.box, self.positive, self.negative, self.previous)


def given_at_random(mask: Bools, kind: str, draw: Generator) -> Given:
    """Draw first prompts for a target.

    Parameters
    ----------
    mask : ndarray of bool, shape (SIDE, SIDE)
        Not empty.
    kind : str
        "box", "points", "both" or "followed": the mask of a neighbouring slice and its box.
    draw : Generator
        Of random numbers.
    """
    if kind == "followed":
        near = _neighbour(mask, draw)
        return Given(_box(near, draw), previous=near.astype(np.float32))
    box = _box(mask, draw) if kind != "points" else None
    if kind == "box":
        return Given(box)
    given = Given(box, _inside(mask, draw))
    if draw.random() < 0.25:
        around = ndimage.binary_dilation(mask, iterations=12) & ~mask
        given = replace(given, negative=_some(around, int(draw.integers(1, 3)), draw))
    return given


def click(given: Given, mask: Bools, probability: Planes) -> Given:
    """Click into the middle of the largest error, as a user would correct the mask.

    Returns
    -------
    Given
        With that click and the mask so far; without a click where there is no error.
    """
    found = probability > 0.5
    given = replace(given, previous=probability)
    missed, extra = _deepest(mask & ~found), _deepest(found & ~mask)
    if missed is not None and (extra is None or missed[1] >= extra[1]):
        return replace(given, positive=(*given.positive, missed[0]))
    if extra is not None:
        return replace(given, negative=(*given.negative, extra[0]))
    return given


def _deepest(region: Bools) -> tuple[Spot, float] | None:
    """The pixel farthest from the region's outline, and how far."""
    if not region.any():
        return None
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(region, 1)))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(x) + 0.5, float(y) + 0.5), float(depth[y, x])


def _box(mask: Bools, draw: Generator) -> Corners:
    box = box_of_mask(mask)
    spread = _NEAT if draw.random() < _TIGHT else _LOOSE
    off = draw.normal(0, spread, 4) * (box.width, box.height, box.width, box.height)
    x1, y1, x2, y2 = (float(edge + by) for edge, by in zip(box.corners, off, strict=True))
    return min(x1, x2 - 2), min(y1, y2 - 2), max(x2, x1 + 2), max(y2, y1 + 2)


def _inside(mask: Bools, draw: Generator) -> tuple[Spot, ...]:
    """The two key points, give or take, or clicks anywhere in the target."""
    if draw.random() < 0.5:
        reach = max(float(np.sqrt(mask.sum())) * 0.04, 0.3)
        points = [(point.x, point.y) for point in key_points_of_mask(mask)]
        moved = [np.clip(np.add(xy, draw.normal(0, reach, 2)), 0, SIDE - 1) + 0.5 for xy in points]
        kept = [(float(x), float(y)) for x, y in moved if mask[int(y), int(x)]]
        if kept:
            return tuple(kept)
    core = ndimage.binary_erosion(mask, iterations=2)
    return _some(core if core.any() else mask, int(draw.integers(1, _MOST_POINTS + 1)), draw)


def _some(region: Bools, count: int, draw: Generator) -> tuple[Spot, ...]:
    rows, columns = np.nonzero(region)
    if not rows.size:
        return ()
    chosen = draw.integers(0, rows.size, count)
    return tuple((float(columns[i]) + 0.5, float(rows[i]) + 0.5) for i in chosen)


def _neighbour(mask: Bools, draw: Generator) -> Bools:
    """The mask as it may be on the next slice: shifted, and larger or smaller."""
    reach = max(float(np.sqrt(mask.sum())) * 0.06, 1.0)
    signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    ripple = ndimage.zoom(draw.normal(0, 1, (6, 6)), SIDE / 6, order=1)
    moved = ndimage.shift(
        signed + reach * (ripple + draw.normal()), draw.normal(0, reach, 2), order=1
    )
    near: Bools = moved > 0
    return near if near.any() else mask
