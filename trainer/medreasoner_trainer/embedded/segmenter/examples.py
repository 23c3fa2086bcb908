"""Training windows: a target under a random view, in random colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from medreasoner_trainer.data import DataSet, Record
from medreasoner_trainer.embedded.colours import coloured
from medreasoner_trainer.embedded.evenness import even_odds
from napari_medreasoner.engines.embedded.window import SIDE, Affine, appearance, sampled

__all__ = ["Example", "Source"]

_KINDS: Final = ("both", "box", "points", "followed")
_SHARES: Final = (0.42, 0.28, 0.22, 0.08)

_BOX_VIEW: Final = (1.35, 1.7)
_POINTS_VIEW: Final = (1.2, 3.2)
"""Side of the window over the target's longer side; points say little about it."""


@dataclass(frozen=True)
class Example:
    """One window.

    Attributes
    ----------
    kind : str
        How it is prompted.
    seen : ndarray of float32, shape (4, SIDE, SIDE)
        See `appearance`.
    mask : ndarray of bool, shape (SIDE, SIDE)
        Not empty.
    """

    kind: str
    seen: NDArray[np.float32]
    mask: NDArray[np.bool_]


class Source:
    """Draws examples from a data set, which it holds in memory.

    Parameters
    ----------
    data : DataSet
        Its records are all trained on.
    """

    def __init__(self, data: DataSet) -> None:
        self._records = list(data.records)
        self._images = {record.image: _with_alpha(data, record) for record in self._records}
        self._masks = [
            Image.fromarray(data.mask(record).astype(np.uint8) * 255) for record in self._records
        ]
        self._odds = even_odds([record.modality for record in self._records])

    def draw(self, draw: Generator) -> Example:
        """Draw one example."""
        while True:
            at = int(draw.choice(len(self._records), p=self._odds))
            kind = str(draw.choice(_KINDS, p=_SHARES))
            affine = _view(self._records[at], kind, draw)
            mask = np.asarray(sampled(self._masks[at], affine)) > 127
            if mask.sum() >= 12:
                break
        window = np.asarray(sampled(self._images[self._records[at].image], affine))
        rgb = coloured(window[..., :3], draw)
        return Example(kind, appearance(rgb, window[..., 3] > 127), mask)


def _with_alpha(data: DataSet, record: Record) -> Image.Image:
    """The picture with a fourth channel that tells it from what lies beyond its edges."""
    image = Image.fromarray(data.image(record))
    image.putalpha(255)
    return image


def _view(record: Record, kind: str, draw: Generator) -> Affine:
    """Turn, mirror, stretch and shift the window around a target."""
    box = record.box
    low, high = _POINTS_VIEW if kind == "points" else _BOX_VIEW
    side = max(box.width, box.height, 4) * np.exp(draw.uniform(np.log(low), np.log(high)))
    shift = draw.normal(0, 0.1 if kind == "points" else 0.03, 2) * side
    angle = draw.normal(0, 0.25) + draw.choice([0, 0.5, 1, 1.5], p=[0.7, 0.1, 0.1, 0.1]) * np.pi
    stretch = np.exp(draw.normal(0, 0.08))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.diag([stretch * draw.choice([-1, 1]), 1 / stretch]) * side / SIDE
    linear = turn @ scale
    centre = np.array([box.x1 + box.x2, box.y1 + box.y2]) / 2 + shift
    corner = centre - linear @ (SIDE / 2, SIDE / 2)
    (a, b), (d, e) = linear.tolist()
    return a, b, float(corner[0]), d, e, float(corner[1])
