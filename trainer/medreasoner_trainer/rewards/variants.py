"""What tells the reward of the paper's equations from that of the authors' released code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, log1p
from typing import Final

from napari_medreasoner.core.geometry import Pair
from napari_medreasoner.core.metrics import circles_dice, circles_dice_released
from napari_medreasoner.core.reading import Forgiven, Layout

__all__ = ["PAPER", "RELEASED", "VARIANTS", "Fall", "Rise", "Thresholds", "Variant"]

_STEEPNESS: Final = 3.0
"""The k of both smoothing functions."""

_FARTHEST: Final = 2.0
"""Distances are cut off here (paper, below Eq. 9: d in [0, 2])."""

_FLOOR: Final = 0.1
"""Lowest reward of the rescaled smoothing functions (paper, Figs 12 and 13)."""


@dataclass(frozen=True, slots=True)
class Rise:
    """Logarithmic smoothing of a share: offset + gain · ln(3·share + 1)."""

    offset: float
    gain: float

    def __call__(self, share: float) -> float:
        """Reward of a share, 0 or more."""
        return self.offset + self.gain * log1p(_STEEPNESS * share)

    @classmethod
    def plain(cls) -> Rise:
        """Paper, Eq. 8 and 21: 0 for nothing, 1 for all."""
        return cls(0.0, 1 / log(_STEEPNESS + 1))

    @classmethod
    def rescaled(cls) -> Rise:
        """Fig. 12 and released code: 0.1 for nothing, 1 for all."""
        return cls(_FLOOR, (1 - _FLOOR) / log(_STEEPNESS + 1))


@dataclass(frozen=True, slots=True)
class Fall:
    """Sigmoid smoothing of a distance: offset + gain / (1 + e^(3·(distance - centre))).

    Attributes
    ----------
    farthest : float
        Larger distances count as this.
    """

    offset: float
    gain: float
    centre: float
    farthest: float

    def __call__(self, distance: float) -> float:
        """Reward of a distance, 0 or more."""
        near = distance if distance < self.farthest else self.farthest
        return self.offset + self.gain / (1 + exp(_STEEPNESS * (near - self.centre)))

    @classmethod
    def plain(cls) -> Fall:
        """Paper, Eq. 9 and 22: 0.9526 at no distance, 0.0474 at 2."""
        return cls(0.0, 1.0, 1.0, _FARTHEST)

    @classmethod
    def rescaled(cls, centre: float, farthest: float) -> Fall:
        """Fig. 13 and released code: 1 at no distance, and 0.1 where the distance is 2."""
        unscaled = cls(0.0, 1.0, centre, _FARTHEST)
        low = unscaled(_FARTHEST)
        gain = (1 - _FLOOR) / (unscaled(0.0) - low)
        return cls(_FLOOR - gain * low, gain, centre, farthest)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Distances in pixels, and the side of the square image they are tuned to.

    Attributes
    ----------
    spread : float
        Two points closer than this have collapsed into one.
    box_l1, points : float
        Mean distance within which the box and the points count in the `base` presets.
    """

    image_size: float = 840.0
    spread: float = 10.0
    box_l1: float = 10.0
    points: float = 100.0

    def scaled(self, side: float) -> Thresholds:
        """The same distances in an image whose longer side is `side`."""
        if side == self.image_size:
            return self
        factor = side / self.image_size
        return Thresholds(side, self.spread * factor, self.box_l1 * factor, self.points * factor)


@dataclass(frozen=True, slots=True)
class Variant:
    """The switches between the two definitions; README.md explains each.

    Attributes
    ----------
    forgiven : Forgiven
        How much may be wrong around the numbers of an answer.
    layout, base_layout : Layout
        What a completion needs for a full `format_think`, and for `thinking`.
    fractions : bool
        Coordinates are divided by the image's width and height; else they are pixels.
    overlap : callable
        Of two pairs of points, as circles.
    points_by_box : bool
        `points_align` takes the mean difference of a coordinate over the true box's diagonal;
        else Eq. 6 as printed, which is twice that mean over nothing.
    rise, fall, scale_fall : callable
        Smoothing of shares, of distances, and of the difference in scale.
    least_inside : float
        Lowest validity of points that lie outside the box.
    relative_spread : bool
        The points' distance is judged by that of the true points; else by a threshold.
    whole : bool
        The `base` presets cut coordinates down to whole pixels and take the maximum corner of
        a box as inclusive.
    digits : int or None
        Decimals a component is rounded to.
    thresholds : Thresholds
        In pixels.
    """

    name: str
    forgiven: Forgiven
    layout: Layout
    base_layout: Layout
    fractions: bool
    overlap: Callable[[Pair, Pair], float]
    points_by_box: bool
    rise: Rise
    fall: Fall
    scale_fall: Fall
    least_inside: float
    relative_spread: bool
    whole: bool
    digits: int | None
    thresholds: Thresholds = Thresholds()

    def limits(self, image_size: tuple[int, int] | None) -> Thresholds:
        """The thresholds in this variant's unit, for an image of this width and height."""
        if self.fractions:
            return self.thresholds.scaled(1.0)
        return self.thresholds.scaled(max(image_size)) if image_size else self.thresholds


PAPER: Final = Variant(
    name="paper",
    forgiven=Forgiven.NOTHING,
    layout=Layout.EXACT,
    base_layout=Layout.EXACT,
    fractions=True,
    overlap=circles_dice,
    points_by_box=False,
    rise=Rise.plain(),
    fall=Fall.plain(),
    scale_fall=Fall.plain(),
    least_inside=0.5,
    relative_spread=True,
    whole=False,
    digits=None,
)

RELEASED: Final = Variant(
    name="released",
    forgiven=Forgiven.QUOTES,
    layout=Layout.SCATTERED,
    base_layout=Layout.FRAMED,
    fractions=False,
    overlap=circles_dice_released,
    points_by_box=True,
    rise=Rise.rescaled(),
    fall=Fall.rescaled(centre=1.0, farthest=2.0),
    scale_fall=Fall.rescaled(centre=0.5, farthest=1.0),
    least_inside=0.25,
    relative_spread=False,
    whole=True,
    digits=4,
)

VARIANTS: Final = {variant.name: variant for variant in (PAPER, RELEASED)}
