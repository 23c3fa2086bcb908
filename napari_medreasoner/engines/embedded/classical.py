"""The `classical` segmenter (ASM): shape, grey levels and the random walker; no weights.

For each pixel three kinds of evidence are added up as log-odds: where it lies in the box (a
soft superellipse: structures fill the middle of their box, seldom its corners), how its
grey level or colour is spread inside the box against outside (histograms of this very
image), and how near it is to a click. Pixels that are sure already are the seeds of the
random walker (Grady, "Random Walks for Image Segmentation", IEEE TPAMI 28(11), 2006, in
scikit-image's implementation), which lets the outline follow edges. The mask is where the
mean of both probabilities is above one half.

The constants were chosen on a validation split; `benchmarks/embedded.py` prints what they
are worth on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.masks import largest_component
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import Segmentation, SliceMask, VolumeInput
from napari_medreasoner.engines.embedded.crop import Crop, extent_of
from napari_medreasoner.engines.embedded.propagation import propagate
from napari_medreasoner.engines.embedded.walker import (
    Bools,
    Floats,
    grey_evidence,
    share_of,
    smoothed,
    walked,
)

__all__ = ["ClassicalSegmenter"]

_SIDE: Final = 96
"""Longer side of the crop after resampling, in pixels: what a live correction has time for."""

_MARGIN: Final = 0.25
"""Around the box, as a share of its longer side: the outside that the histograms see."""

_POWER: Final = 2.6
_RIM: Final = 0.16
_GUESSED_RIM: Final = 0.3
"""Superellipse: exponent, and width of its soft rim in half sides of a given, a guessed box."""

_CORE: Final = 0.5
_CLICKED: Final = 0.12
"""Surely inside, for the histograms: this part of the box, and this near to a click."""

_GREY_WEIGHT: Final = 0.4
_GUESSED_GREY_WEIGHT: Final = 0.7
_CLICK_WEIGHT: Final = 4.0
_CLICK_REACH: Final = 0.12
"""Standard deviation of what a click says about its surroundings, in mean box sides."""


class ClassicalSegmenter:
    """Segments from a box, points or both, in 2D and through volumes, on the CPU."""

    info = EngineInfo(
        name="classical",
        title="Classical (random walker)",
        description=(
            "Shape of the box, grey levels and edges, nothing learned: good on compact targets "
            "with a visible border, poor on thin or faint ones."
        ),
        licence="BSD-3-Clause",
        coordinates="pixels of the given picture, boxes max-exclusive",
        input_window="the 8-bit picture as displayed",
        volumes=True,
    )

    def set_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the picture itself: all the work depends on the prompts."""
        return image

    def segment(
        self, embedding: NDArray[np.uint8], prompts: Prompts, previous: Any = None
    ) -> Segmentation:
        """Segment one picture.

        With a box the mask stays inside it, except where a positive point lies outside.

        Parameters
        ----------
        embedding : ndarray of uint8, shape (row, column, 3)
            From `set_image`.
        prompts : Prompts
            A box or a positive point at least.
        previous : None
            Not used: every mask is made of the prompts alone.

        Returns
        -------
        Segmentation
            Never empty. The score is the mean of |2p - 1| where the mask may be: 1 when
            every pixel is decided.

        Raises
        ------
        PromptError
            When the prompts say nothing, or lie outside the picture.
        """
        height, width = embedding.shape[:2]
        prompts = prompts.clipped(width, height)
        box = _stretched(prompts, width, height)
        crop = Crop.around(box, width, height, _MARGIN, _SIDE)
        allowed, share = _probability(smoothed(crop.take(embedding)), crop, box, prompts)
        whole = crop.put(share, (height, width))
        mask = _tidy(whole > 0.5, prompts.points)
        if not mask.any():
            mask[np.unravel_index(int(whole.argmax()), whole.shape)] = True
        return Segmentation(mask, float(np.abs(2 * share[allowed] - 1).mean()))

    def propagate(self, request: VolumeInput) -> Iterator[SliceMask]:
        """Segment the prompted slice, then follow its mask by the random walker.

        Raises
        ------
        PromptError
            As for `segment`.
        """
        return propagate(self, request)


def _stretched(prompts: Prompts, width: int, height: int) -> Box:
    """The box, stretched to positive points outside it; guessed when there is none."""
    positive = [point for point in prompts.points if point.positive]
    if prompts.box is None:
        return extent_of(positive, width, height)
    x1, y1, x2, y2 = prompts.box.corners
    return Box.from_corners(
        min([x1, *(point.x for point in positive)]),
        min([y1, *(point.y for point in positive)]),
        max([x2, *(point.x + 1 for point in positive)]),
        max([y2, *(point.y + 1 for point in positive)]),
    )


def _tidy(mask: Bools, points: tuple[Point, ...]) -> Bools:
    """Fill holes without a negative point; keep what holds a positive one, else the largest."""
    clicked = np.zeros((2, *mask.shape), np.bool_)
    for point in points:
        clicked[int(point.positive), point.y, point.x] = True
    negative, positive = clicked
    holes = _touching(np.asarray(ndimage.binary_fill_holes(mask)) & ~mask, negative)
    filled = (np.asarray(ndimage.binary_fill_holes(mask)) & ~holes) | positive
    return _touching(filled, positive) if positive.any() else largest_component(filled)


def _touching(mask: Bools, places: Bools) -> Bools:
    """The components of a mask that hold any of the places."""
    labels, _ = ndimage.label(mask)
    kept: Bools = np.isin(labels, np.unique(labels[places & mask])) & mask
    return kept


def _distances(crop: Crop, box: Box, points: tuple[Point, ...]) -> list[Floats]:
    """Distance of the crop's pixels from each point, in mean box sides."""
    y, x = crop.centres()
    side = box.area**0.5
    return [np.hypot(y - point.y, x - point.x) / side for point in points]


def _probability(values: Floats, crop: Crop, box: Box, prompts: Prompts) -> tuple[Bools, Floats]:
    """Where in the crop the mask may be, and how probably each pixel is in it."""
    y, x = crop.centres()
    down = np.abs(y - (box.y1 + box.y2 - 1) / 2) * 2 / box.height
    across = np.abs(x - (box.x1 + box.x2 - 1) / 2) * 2 / box.width
    radius = (down**_POWER + across**_POWER) ** (1 / _POWER)
    guessed = prompts.box is None  # and so bounds nothing
    rim, grey_weight = (_GUESSED_RIM, _GUESSED_GREY_WEIGHT) if guessed else (_RIM, _GREY_WEIGHT)
    allowed = ((down <= 1) & (across <= 1)) | guessed
    evidence = (1 - radius) / rim
    inside, outside = radius < _CORE, ~allowed | (radius > 1 + 2 * _RIM)
    target, background = np.zeros_like(allowed), np.zeros_like(allowed)
    for point, distance in zip(prompts.points, _distances(crop, box, prompts.points), strict=True):
        near = distance < _CLICKED
        inside = inside | near if point.positive else inside & ~near
        outside = outside & ~near if point.positive else outside | near
        (target if point.positive else background)[distance == distance.min()] = True
        weight = _CLICK_WEIGHT if point.positive else -_CLICK_WEIGHT
        evidence += weight * np.exp(-((distance / _CLICK_REACH) ** 2) / 2)
    evidence += grey_weight * grey_evidence(values, inside, outside)
    share = share_of(evidence)
    share[~allowed] = 0
    return allowed, walked(values, share, target, background | ~allowed)
