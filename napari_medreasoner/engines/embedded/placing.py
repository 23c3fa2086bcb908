"""Where in an image a structure is: training priors refined by the image's own evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.masks import key_points_of_mask, largest_component
from napari_medreasoner.engines.embedded.evidence import (
    STRATEGIES,
    Floats,
    box_of,
    candidate_boxes,
    fraction_iou,
    region_features,
    resampled,
    smooth_map,
    thumbnail,
)
from napari_medreasoner.engines.embedded.priors import StructurePrior
from napari_medreasoner.engines.embedded.walker import share_of

__all__ = ["Placed", "place"]

_POINT_LEVEL: Final = 0.5
_POINT_SIDE: Final = 96
"""Longest side of the grid on which key points are looked for."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Outcome of placing one structure.

    Attributes
    ----------
    expected, box : Box
        Before and after the image's evidence, in pixels of the image.
    points : tuple of two Point
        Inside `box`.
    strategy : str
        Member of `evidence.STRATEGIES` that gave the box; "expected" when there is no
        evidence.
    agreement : float
        Intersection over union of `expected` and `box`.
    evidence : float or None
        Mean probability of the structure in the box; None when its looks are not known.
    """

    expected: Box
    box: Box
    points: tuple[Point, Point]
    strategy: str
    agreement: float
    evidence: float | None


def place(image: NDArray[np.uint8], prior: StructurePrior, *, same_modality: bool) -> Placed:
    """Place a structure in an image.

    Parameters
    ----------
    image : ndarray of uint8, shape (row, column, 3)
        As displayed.
    prior : StructurePrior
        Of the structure.
    same_modality : bool
        False: the prior is of another modality, so that neither layout nor grey levels
        can be compared and only the mean place is used.
    """
    height, width = image.shape[:2]
    if not same_modality:
        mean = np.asarray(prior.placement.bias, np.float32)
        return _unrefined(mean, width, height)
    small = thumbnail(image)
    expected = prior.placement(small.layout[None])[0]
    if prior.region is None:
        return _unrefined(expected, width, height)
    features = region_features(small, expected)
    probability = smooth_map(share_of(prior.region(features)[..., 0]))
    boxes = candidate_boxes(probability, expected)
    fractions = boxes[STRATEGIES.index(prior.strategy)]
    box = _pixels(fractions, width, height)
    inside = _inside(probability, fractions, box)
    return Placed(
        expected=_pixels(boxes[0], width, height),
        box=box,
        points=_key_points(inside, box),
        strategy=prior.strategy,
        agreement=fraction_iou(boxes[0], fractions),
        evidence=float(inside.mean()),
    )


def _unrefined(placement: Floats, width: int, height: int) -> Placed:
    box = _pixels(box_of(placement), width, height)
    points = _key_points(np.ones((box.height, box.width), np.float32), box)
    return Placed(box, box, points, STRATEGIES[0], 1.0, None)


def _pixels(fractions: Floats, width: int, height: int) -> Box:
    """Box in whole pixels, at least one, inside the image."""
    x1, y1, x2, y2 = (float(value) for value in fractions)
    left, top = min(round(x1 * width), width - 1), min(round(y1 * height), height - 1)
    return Box.from_corners(
        left, top, max(round(x2 * width), left + 1), max(round(y2 * height), top + 1)
    )


def _inside(probability: Floats, fractions: Floats, box: Box) -> Floats:
    """The map inside the box, at most 96 pixels a side."""
    rows, columns = probability.shape
    scale = min(_POINT_SIDE / max(box.width, box.height), 1.0)
    size = max(1, round(box.height * scale)), max(1, round(box.width * scale))
    x1, y1, x2, y2 = (float(value) for value in fractions)
    if x2 - x1 < 1 / columns or y2 - y1 < 1 / rows:
        return np.ones(size, np.float32)
    return resampled(probability, size, (x1 * columns, y1 * rows, x2 * columns, y2 * rows))


def _key_points(inside: Floats, box: Box) -> tuple[Point, Point]:
    """Key points of the likeliest region, kept within the ellipse that fills the box."""
    rows, columns = inside.shape
    y = (np.arange(rows) + 0.5) * 2 / rows - 1
    x = (np.arange(columns) + 0.5) * 2 / columns - 1
    ellipse = np.hypot(x[None, :], y[:, None]) <= 1
    region = largest_component(ellipse & (inside > min(_POINT_LEVEL, float(inside.max()) / 2)))
    first, second = key_points_of_mask(region if region.any() else ellipse)
    return _back(first, inside.shape, box), _back(second, inside.shape, box)


def _back(point: Point, shape: tuple[int, ...], box: Box) -> Point:
    """Pixel of the image under the centre of a pixel of the map."""
    return Point(
        x=min(box.x1 + int((point.x + 0.5) * box.width / shape[1]), box.x2 - 1),
        y=min(box.y1 + int((point.y + 0.5) * box.height / shape[0]), box.y2 - 1),
    )
