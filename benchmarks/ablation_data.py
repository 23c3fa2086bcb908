"""What the ablation learns from and is judged by: five super-categories train, the rest do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.tiny_runs import with_short_trace
from medreasoner_trainer.construct import ask_records
from medreasoner_trainer.data import DataSet, Record, open_data
from medreasoner_trainer.training.config import TrainConfig
from medreasoner_trainer.training.examples import Examples
from napari_medreasoner.core.geometry import Box, Point

__all__ = ["KEPT", "Sets", "blurred", "is_known"]

KEPT: Final = frozenset(
    {"abdomen anatomies", "eye anatomies", "heart anatomies", "lung", "neoplasm"}
)
"""The five most frequent super-categories of UMRG-mini; everything else is out of distribution."""

_SEED: Final = 0
"""Of questions and blur, which are the same for all arms and all seeds of training."""

_BLUR: Final = 0.25
"""Standard deviation of the cold start's coordinates, as a share of the box's sides."""


@dataclass(frozen=True)
class Sets:
    """Records by what they are for.

    Attributes
    ----------
    cold : Examples
        Of the cold start: those of `train` with blurred coordinates.
    train : Examples
        Of the arms: kept super-categories of the training split.
    judged : dict of str to Examples
        All records of "val" and "test", of kept and of other super-categories.
    """

    cold: Examples
    train: Examples
    judged: dict[str, Examples]

    @classmethod
    def of(cls, config: TrainConfig) -> Sets:
        """Read the data set that a configuration names."""
        data = open_data(Path(config.data.path))
        known = [r for r in data.records if r.split == "train" and is_known(r)]
        rng = np.random.default_rng(_SEED)

        def examples(records: Iterable[Record]) -> Examples:
            return Examples(
                data, _worded(data, records), config.data.template, config.data.side, _SEED
            )

        return cls(
            examples(blurred(record, rng) for record in known),
            examples(known),
            {
                split: examples(record for record in data.records if record.split == split)
                for split in ("val", "test")
            },
        )


def is_known(record: Record) -> bool:
    """Whether targets of its kind are trained on."""
    return record.supercategory in KEPT


def _worded(data: DataSet, records: Iterable[Record]) -> Sequence[Record]:
    """Those there is a question for, with it and a short trace."""
    short = data.with_records([with_short_trace(record) for record in records])
    return [record for record in ask_records(short, _SEED).records if record.question]


def blurred(record: Record, rng: np.random.Generator) -> Record:
    """A record whose box and points are wrong by about a quarter of the box's sides."""
    sides = np.array([record.box.width, record.box.height])
    places = np.array([*record.box.corners, *(c for p in record.points for c in (p.x, p.y))])
    moved = places.reshape(4, 2) + rng.normal(0.0, _BLUR, (4, 2)) * sides
    inside = np.clip(np.rint(moved).astype(int), 0, np.array(record.image_size) - 1)
    low, high = np.sort(inside[:2], axis=0).tolist()
    box = Box.from_corners(*low, high[0] + 1, high[1] + 1)
    first, second = (Point(x=x, y=y) for x, y in inside[2:].tolist())
    return record.model_copy(update={"box": box, "points": (first, second)})
