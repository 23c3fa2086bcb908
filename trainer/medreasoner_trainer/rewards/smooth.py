"""The smoothed and penalised components of the `soft` and `hard` presets."""

from __future__ import annotations

from typing import Final

from medreasoner_trainer.rewards.boxes import (
    alignment_distance,
    area_valid,
    diagonal,
    has_area,
    inside_valid,
    scale_distance,
)
from medreasoner_trainer.rewards.formats import accepted, answer_level, think_level
from medreasoner_trainer.rewards.points import (
    angle_cosine,
    city_block_distance,
    collapsed_valid,
    spread_valid,
)
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import Variant
from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Corners, Pair
from napari_medreasoner.core.metrics import corners_iou
from napari_medreasoner.core.reading import Reading

__all__ = ["SMOOTH", "smooth_components"]

SMOOTH: Final = (
    "format_think",
    "format_seg",
    "bbox_iou",
    "points_dice",
    "bbox_align",
    "bbox_scale",
    "points_align",
    "points_angle",
)
"""The components that count, each 0 to 1."""

_VALIDITIES: Final = (
    "bbox_position_valid",
    "bbox_area_valid",
    "points_position_valid",
    "points_spread_valid",
)

_NOTHING: Final = dict.fromkeys((*SMOOTH, *_VALIDITIES), 0.0)


def smooth_components(
    reading: Reading, truth: Truth, wanted: tuple[str, ...], variant: Variant
) -> dict[str, float]:
    """The wanted components and the four validities; 0 for all else.

    Parameters
    ----------
    reading : Reading
        Of the completion.
    truth : Truth
        As `Variant.fractions` asks: see `medreasoner_trainer.rewards.score`.
    wanted : tuple of str
        Names out of `SMOOTH`.
    variant : Variant
        How they are computed.
    """
    reading = accepted(reading, variant.forgiven)
    parts = _NOTHING.copy()
    parts["format_think"] = think_level(reading, variant)
    parts["format_seg"] = answer_level(reading)
    if not isinstance(reading.bbox, AnswerError) and has_area(reading.bbox):
        _judge_box(parts, reading.bbox, truth, wanted, variant)
    if not isinstance(reading.points, AnswerError):
        _judge_points(parts, reading.points, truth, wanted, variant)
    return parts


def _judge_box(
    parts: dict[str, float], box: Corners, truth: Truth, wanted: tuple[str, ...], variant: Variant
) -> None:
    inside = inside_valid(truth.points, box, variant.least_inside)
    area = area_valid(box, truth.box)
    parts["bbox_position_valid"], parts["bbox_area_valid"] = inside, area
    digits = variant.digits
    parts["bbox_iou"] = _penalised(variant.rise(corners_iou(box, truth.box)), inside, area, digits)
    if "bbox_align" in wanted:
        near = variant.fall(alignment_distance(box, truth.box))
        parts["bbox_align"] = _penalised(near, inside, area, digits)
    if "bbox_scale" in wanted:
        alike = variant.scale_fall(scale_distance(box, truth.box))
        parts["bbox_scale"] = _penalised(alike, inside, area, digits)


def _judge_points(
    parts: dict[str, float], pair: Pair, truth: Truth, wanted: tuple[str, ...], variant: Variant
) -> None:
    inside = inside_valid(pair, truth.box, variant.least_inside)
    if variant.relative_spread:
        apart = spread_valid(pair, truth.points)
    else:
        apart = collapsed_valid(pair, variant.limits(truth.image_size).spread)
    parts["points_position_valid"], parts["points_spread_valid"] = inside, apart
    digits = variant.digits
    shared = variant.rise(variant.overlap(pair, truth.points))
    parts["points_dice"] = _penalised(shared, inside, apart, digits)
    if "points_align" in wanted:
        distance = city_block_distance(pair, truth.points)
        if variant.points_by_box:
            distance /= 2 * diagonal(truth.box)
        near = variant.fall(distance)
        parts["points_align"] = _penalised(near, inside, apart, digits)
    if "points_angle" in wanted:
        along = variant.rise(angle_cosine(pair, truth.points))
        parts["points_angle"] = _penalised(along, inside, apart, digits)


def _penalised(reward: float, valid: float, also_valid: float, digits: int | None) -> float:
    """Paper, Eq. 10 and 23 with its default of 0.7: between 0.7 r and r, at most 1."""
    # In the order of Eq. 10: another one rounds ties the other way.
    kept = 0.7 * reward + 0.3 * reward * (valid + also_valid) / 2
    if kept >= 1:
        return 1.0
    return kept if digits is None else round(kept, digits)
