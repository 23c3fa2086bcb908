"""The all-or-nothing components of the `base` presets, after Seg-Zero."""

from __future__ import annotations

from math import trunc
from typing import Any, Final

from medreasoner_trainer.rewards.boxes import has_area, inside_valid, mean_distance
from medreasoner_trainer.rewards.formats import accepted
from medreasoner_trainer.rewards.points import straight_distance
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import Variant
from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.metrics import corners_iou
from napari_medreasoner.core.reading import Forgiven, Reading

__all__ = ["BASE", "base_components"]

BASE: Final = ("thinking", "segment", "iou", "bbox_l1", "points_l1")
"""The components, each 0 or 1."""

_LEAST_IOU: Final = 0.5


def base_components(reading: Reading, truth: Truth, variant: Variant) -> dict[str, float]:
    """Whether each condition holds; arguments as of `smooth_components`."""
    reading = accepted(reading, Forgiven.NOTHING)
    bbox, points = reading.bbox, reading.points
    parts = dict.fromkeys(BASE, 0.0)
    parts["thinking"] = float(reading.layout >= variant.base_layout)
    if isinstance(bbox, AnswerError):
        return parts
    parts["segment"] = float(not isinstance(points, AnswerError))
    box = _whole(*bbox) if variant.whole else bbox
    if not has_area(box):
        return parts
    limits = variant.limits(truth.image_size)
    iou = corners_iou(box, truth.box, extent=float(variant.whole))
    parts["iou"] = float(iou > _LEAST_IOU)
    parts["bbox_l1"] = float(mean_distance(box, truth.box) < limits.box_l1)
    if not isinstance(points, AnswerError):
        pair = (_whole(*points[0]), _whole(*points[1])) if variant.whole else points
        inside = inside_valid(pair, box, least=0.0) == 1
        near = straight_distance(pair, truth.points) < limits.points
        parts["points_l1"] = float(inside and near)
    return parts


def _whole(*numbers: float) -> tuple[Any, ...]:
    """Towards zero."""
    return tuple(map(trunc, numbers))
