"""Scores the embedded engines on UMRG-mini: `python benchmarks/embedded.py [--split val]`.

The environment variable MEDREASONER_SHARED names the folder that holds `data/umrg_mini`.
The reasoner is asked for the record's category by name, so that the words are not what is
measured; the segmenter is given the record's own box and points.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from dataclasses import astuple, dataclass
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from medreasoner_trainer.data import DataSet, Record, open_data
from napari_medreasoner.core.geometry import Box, Prompts
from napari_medreasoner.core.grounding import parse_answer
from napari_medreasoner.core.metrics import box_iou, dice
from napari_medreasoner.engines.base import ReasonerInput
from napari_medreasoner.engines.embedded.classical import ClassicalSegmenter
from napari_medreasoner.engines.embedded.prior import PriorReasoner

CentrePriors = dict[tuple[str, str], tuple[float, ...]]


@dataclass(frozen=True)
class Row:
    """Scores of one record; times in milliseconds."""

    prior_iou: float
    centre_iou: float
    hit: float
    dice_both: float
    dice_box: float
    dice_points: float
    dice_filled: float
    dice_chain: float
    reason_ms: float
    set_ms: float
    segment_ms: float


HEADINGS = (
    "prior IoU",
    "centre IoU",
    "IoU>=.5",
    "box+pts",
    "box",
    "points",
    "filled",
    "chain",
    "ask ms",
    "set ms",
    "seg ms",
)


@cache
def engines() -> tuple[PriorReasoner, ClassicalSegmenter]:
    """One pair of engines for each process."""
    return PriorReasoner(), ClassicalSegmenter()


@cache
def data() -> DataSet:
    """The data set, opened once for each process."""
    return open_data(Path(os.environ["MEDREASONER_SHARED"]) / "data" / "umrg_mini", strict=True)


def centre_priors(records: list[Record]) -> CentrePriors:
    """Mean box of each category and modality, in fractions of the image."""
    boxes: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    for record in records:
        width, height = record.image_size
        x1, y1, x2, y2 = record.box.corners
        boxes[record.category, record.modality].append(
            (x1 / width, y1 / height, x2 / width, y2 / height)
        )
    return {key: tuple(np.mean(found, axis=0)) for key, found in boxes.items()}


def score(task: tuple[Record, tuple[float, ...] | None]) -> Row:
    """Run both engines on one record."""
    record, centre = task
    reasoner, segmenter = engines()
    image, mask = data().image(record), data().mask(record)
    height, width = mask.shape
    start = perf_counter()
    text = "".join(reasoner.stream(ReasonerInput(image, record.category, [], record.modality)))
    asked = perf_counter()
    embedding = segmenter.set_image(image)
    embedded = perf_counter()
    both = segmenter.segment(embedding, Prompts(box=record.box, points=record.points))
    segmented = perf_counter()
    iou = chain = 0.0
    if '"bbox"' in text:
        found = parse_answer(text).on_image(width, height)
        iou = box_iou(found.box, record.box)
        end = segmenter.segment(embedding, Prompts(box=found.box, points=found.points))
        chain = dice(end.mask, mask)
    filled = np.zeros_like(mask)
    filled[record.box.slices] = True
    return Row(
        prior_iou=iou,
        centre_iou=box_iou(_pixels(centre, width, height), record.box) if centre else 0.0,
        hit=float(iou >= 0.5),
        dice_both=dice(both.mask, mask),
        dice_box=dice(segmenter.segment(embedding, Prompts(box=record.box)).mask, mask),
        dice_points=dice(segmenter.segment(embedding, Prompts(points=record.points)).mask, mask),
        dice_filled=dice(filled, mask),
        dice_chain=chain,
        reason_ms=(asked - start) * 1000,
        set_ms=(embedded - asked) * 1000,
        segment_ms=(segmented - embedded) * 1000,
    )


def _pixels(fractions: tuple[float, ...], width: int, height: int) -> Box:
    x1, y1, x2, y2 = fractions
    left, top = round(x1 * width), round(y1 * height)
    right, bottom = max(round(x2 * width), left + 1), max(round(y2 * height), top + 1)
    return Box.from_corners(left, top, right, bottom)


def report(records: list[Record], rows: list[Row]) -> None:
    """Print one line for each modality and one for all."""
    print(f"{'modality':15}{'n':>5}" + "".join(f"{heading:>11}" for heading in HEADINGS))
    groups: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for record, row in zip(records, rows, strict=True):
        groups[record.modality].append(astuple(row))
    everything = [values for found in groups.values() for values in found]
    for name, found in [*sorted(groups.items()), ("all", everything)]:
        means = np.mean(found, axis=0)
        cells = [f"{mean:11.3f}" for mean in means[:-3]] + [f"{mean:11.1f}" for mean in means[-3:]]
        print(f"{name:15}{len(found):5}" + "".join(cells))


def main() -> None:
    """Read the options and score one split with two processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    split = parser.parse_args().split
    folder = Path(os.environ.get("MEDREASONER_SHARED", "")) / "data" / "umrg_mini"
    if not os.environ.get("MEDREASONER_SHARED") or not folder.is_dir():
        print("MEDREASONER_SHARED does not name a folder with data/umrg_mini; nothing to score.")
        return
    records = [record for record in data().records if record.split == split]
    centres = centre_priors([record for record in data().records if record.split == "train"])
    tasks = [(record, centres.get((record.category, record.modality))) for record in records]
    with Pool(2) as pool:
        rows = pool.map(score, tasks, chunksize=4)
    report(records, rows)


if __name__ == "__main__":
    main()
