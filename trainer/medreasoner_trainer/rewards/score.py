"""Presets, and the score they give a completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from medreasoner_trainer.rewards.base import BASE, base_components
from medreasoner_trainer.rewards.smooth import SMOOTH, smooth_components
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import RELEASED, Variant
from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.reading import Reading, read_answer

__all__ = ["PRESETS", "Preset", "score"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Which components count; each weighs the same.

    Attributes
    ----------
    name : str
        As on the command line.
    counted : tuple of str
        Names out of `BASE` or out of `SMOOTH`; their sum is the score.
    """

    name: str
    counted: tuple[str, ...]

    def components(self, reading: Reading, truth: Truth, variant: Variant) -> dict[str, float]:
        """Every component of the preset's kind, 0 for those that do not count."""
        if self.counted[0] in SMOOTH:
            return smooth_components(reading, truth, self.counted, variant)
        parts = base_components(reading, truth, variant)
        return {name: value if name in self.counted else 0.0 for name, value in parts.items()}


PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset("soft", SMOOTH[:4]),
        Preset("hard", SMOOTH),
        Preset("base", BASE),
        # The released code loses the box terms to an exception of its own.
        Preset("base-released", ("thinking", "segment", "points_l1")),
    )
}


def score(
    completion: str, truth: Truth, preset: Preset, variant: Variant = RELEASED
) -> dict[str, float]:
    """Judge a completion.

    Parameters
    ----------
    completion : str
        The model's whole text, whatever it is.
    truth : Truth
        A checked one.
    preset : Preset
        One of `PRESETS`.
    variant : Variant
        `PAPER` or `RELEASED`.

    Returns
    -------
    dict of str to float
        Every component by name, finite and 0 to 1, and "score", the sum of those that count.
    """
    reading = read_answer(completion)
    if variant.fractions:
        side = round(variant.thresholds.image_size)
        width, height = truth.image_size or (side, side)
        reading, truth = _reading_over(reading, width, height), _truth_over(truth, width, height)
    parts = preset.components(reading, truth, variant)
    parts["score"] = sum([parts[name] for name in preset.counted])
    return parts


def _reading_over(reading: Reading, width: int, height: int) -> Reading:
    """The reading with coordinates as fractions of the image."""
    bbox, points = reading.bbox, reading.points
    if not isinstance(bbox, AnswerError):
        bbox = (bbox[0] / width, bbox[1] / height, bbox[2] / width, bbox[3] / height)
    if not isinstance(points, AnswerError):
        (ax, ay), (bx, by) = points
        points = (ax / width, ay / height), (bx / width, by / height)
    return Reading(*reading[:3], bbox, points)


def _truth_over(truth: Truth, width: int, height: int) -> Truth:
    """The truth with coordinates as fractions of the image."""
    (ax, ay), (bx, by) = truth.points
    x1, y1, x2, y2 = truth.box
    box = (x1 / width, y1 / height, x2 / width, y2 / height)
    return Truth(box, ((ax / width, ay / height), (bx / width, by / height)), truth.image_size)
