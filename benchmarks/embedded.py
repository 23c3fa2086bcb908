"""Scores engines on UMRG-mini: `python benchmarks/embedded.py [--split val] [--crm …] [--asm …]`.

The environment variable MEDREASONER_SHARED names the folder that holds `data/umrg_mini`.
Reasoners get the image and an implicit question of the bank, of those kept from training; and a
hundred questions that have no answer in their image. Segmenters get the record's own box and
points, the two apart, and, where the mask is worse than 0.8, one click into its largest error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from dataclasses import astuple, dataclass, fields
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from medreasoner_trainer.construct.questions import load_bank, question_for
from medreasoner_trainer.data import DataSet, Record, open_data
from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Point, Prompts
from napari_medreasoner.core.grounding import Grounding, parse_answer
from napari_medreasoner.core.metrics import box_iou, dice
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.engines.base import Reasoner, Segmenter
from napari_medreasoner.engines.base import question_for as prompted
from napari_medreasoner.engines.registry import create_reasoner, create_segmenter

Mask = NDArray[np.bool_]
NAN = float("nan")
WORSE_THAN = 0.8
SEED = 0


@dataclass(frozen=True)
class Asked:
    """One reasoner on one record; times in milliseconds."""

    parsed: float
    refused: float
    iou: float
    hit: float
    chain: float
    first_ms: float
    ask_ms: float


@dataclass(frozen=True)
class Segmented:
    """One segmenter on one record; a gain is that of one click into a mask below 0.8."""

    both: float
    box: float
    points: float
    filled: float
    better: float
    gain: float
    set_ms: float
    segment_ms: float
    click_ms: float


@cache
def reasoner(name: str) -> Reasoner:
    """One for each process."""
    return create_reasoner(name)


@cache
def segmenter(name: str) -> Segmenter:
    """One for each process."""
    return create_segmenter(name)


@cache
def data() -> DataSet:
    """The data set, opened once for each process."""
    return open_data(Path(os.environ["MEDREASONER_SHARED"]) / "data" / "umrg_mini", strict=True)


def answered(name: str, image: NDArray[np.uint8], question: str, modality: str) -> tuple[str, Any]:
    """The whole text, and the moment of its first words."""
    engine = reasoner(name)
    template = next(iter(BUILT_IN.values()))
    first = None
    text = ""
    for piece in engine.stream(prompted(engine, image, question, template, modality)):
        text += piece
        if first is None and text.strip():
            first = perf_counter()
    return text, first


def ask(task: tuple[str, str, str, Record]) -> Asked:
    """Ask one reasoner about one record, and segment what it answers."""
    crm, asm, question, record = task
    image, mask = data().image(record), data().mask(record)
    engine = segmenter(asm)
    reasoner(crm)
    start = perf_counter()
    text, first = answered(crm, image, question, record.modality)
    done = perf_counter()
    times = (first - start) * 1000, (done - start) * 1000
    try:
        found: Grounding = parse_answer(text).on_image(mask.shape[1], mask.shape[0])
    except AnswerError as error:
        refused = float(error.fault == "refused")
        return Asked(refused, refused, 0.0, 0.0, 0.0, *times)
    iou = box_iou(found.box, record.box)
    made = engine.segment(engine.set_image(image), Prompts(box=found.box, points=found.points))
    return Asked(1.0, 0.0, iou, float(iou >= 0.5), dice(made.mask, mask), *times)


def segment(task: tuple[str, Record]) -> Segmented:
    """Segment one record from its own prompts."""
    name, record = task
    engine, image, mask = segmenter(name), data().image(record), data().mask(record)
    start = perf_counter()
    picture = engine.set_image(image)
    ready = perf_counter()
    prompts = Prompts(box=record.box, points=record.points)
    both = engine.segment(picture, prompts)
    done = perf_counter()
    score, better, gain, click_ms = dice(both.mask, mask), NAN, NAN, NAN
    if score < WORSE_THAN:
        more = prompts.model_copy(update={"points": (*prompts.points, click_of(both.mask, mask))})
        began = perf_counter()
        corrected = engine.segment(picture, more, both.state)
        click_ms = (perf_counter() - began) * 1000
        gain = dice(corrected.mask, mask) - score
        better = float(gain > 0)
    filled = np.zeros_like(mask)
    filled[record.box.slices] = True
    return Segmented(
        both=score,
        box=dice(engine.segment(picture, Prompts(box=record.box)).mask, mask),
        points=dice(engine.segment(picture, Prompts(points=record.points)).mask, mask),
        filled=dice(filled, mask),
        better=better,
        gain=gain,
        set_ms=(ready - start) * 1000,
        segment_ms=(done - ready) * 1000,
        click_ms=click_ms,
    )


def click_of(found: Mask, truth: Mask) -> Point:
    """The middle of the largest error, as a user would click."""
    best: tuple[float, Point] | None = None
    for region, positive in ((truth & ~found, True), (found & ~truth, False)):
        if not region.any():
            continue
        depth = np.asarray(ndimage.distance_transform_edt(np.pad(region, 1)))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if best is None or depth[y, x] > best[0]:
            best = float(depth[y, x]), Point(x=int(x), y=int(y), positive=positive)
    if best is None:
        raise ValueError("the mask has no error")
    return best[1]


def refused(task: tuple[str, str, Record]) -> float:
    """Whether a reasoner refuses a question."""
    name, question, record = task
    text, _ = answered(name, data().image(record), question, record.modality)
    try:
        parse_answer(text)
    except AnswerError as error:
        return float(error.fault == "refused")
    return 0.0


def unanswerable(records: list[Record]) -> list[tuple[str, Record]]:
    """A hundred questions: half about no image at all, half about a structure of another kind."""
    path = Path(__file__).with_name("unanswerable.txt")
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    draw = np.random.default_rng(SEED)
    chosen = [records[i] for i in draw.choice(len(records), 2 * len(lines), replace=False)]
    asked = list(zip(lines, chosen, strict=False))
    shown = defaultdict(set)
    for record in data().records:
        shown[record.modality].add(record.category)
    everything = sorted(set(load_bank()) & {record.category for record in data().records})
    for record in chosen[len(lines) :]:
        others = [name for name in everything if name not in shown[record.modality]]
        questions = load_bank()[str(draw.choice(others))].for_split(record.split)
        asked.append((str(draw.choice(questions)), record))
    return asked


def report(title: str, kind: type, records: list[Record], rows: list[Any]) -> None:
    """Print one line for each modality and one for all."""
    names = [field.name for field in fields(kind)]
    print(f"\n{title}\n{'modality':15}{'n':>5}" + "".join(f"{name:>11}" for name in names))
    groups: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for record, row in zip(records, rows, strict=True):
        groups[record.modality].append(astuple(row))
    everything = [values for found in groups.values() for values in found]
    for name, found in [*sorted(groups.items()), ("all", everything)]:
        columns = np.array(found)
        cells = ""
        for column, heading in zip(columns.T, names, strict=True):
            known = column[~np.isnan(column)]
            middle = np.median if heading.endswith("_ms") else np.mean
            cells += f"{middle(known):11.3f}" if known.size else f"{'-':>11}"
        print(f"{name:15}{len(found):5}{cells}")


def main() -> None:
    """Read the options and score one split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    parser.add_argument("--crm", default="prior", help="reasoners, commas between")
    parser.add_argument("--asm", default="unet,classical", help="segmenters, commas between")
    parser.add_argument("--by-name", action="store_true", help="ask for categories by name")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    folder = Path(os.environ.get("MEDREASONER_SHARED", "")) / "data" / "umrg_mini"
    if not os.environ.get("MEDREASONER_SHARED") or not folder.is_dir():
        print("MEDREASONER_SHARED does not name a folder with data/umrg_mini; nothing to score.")
        return
    crms, asms = ([name for name in text.split(",") if name] for text in (given.crm, given.asm))
    records = [record for record in data().records if record.split == given.split]
    askable = [record for record in records if question_for(record, SEED)]
    with Pool(given.processes) as pool:
        for name in asms:
            rows = pool.map(segment, [(name, record) for record in records], chunksize=4)
            report(f"segmenter {name}, {given.split}", Segmented, records, rows)
        for name in crms:
            asked = [
                (name, asms[0], r.category if given.by_name else question_for(r, SEED), r)
                for r in askable
            ]
            answers = pool.map(ask, asked, chunksize=4)
            report(f"reasoner {name} x {asms[0]}, {given.split}", Asked, askable, answers)
            wrong = [(name, *pair) for pair in unanswerable(records)]
            right = pool.map(refused, wrong, chunksize=4)
            half = len(right) // 2
            print(
                f"refused of {half} about no image: {np.mean(right[:half]):.0%}, of "
                f"{len(right) - half} about another kind of image: {np.mean(right[half:]):.0%}"
            )


if __name__ == "__main__":
    main()
