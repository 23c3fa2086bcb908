"""What the ablation publishes: means with intervals, differences, and a plot of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medreasoner_trainer.evaluation.statistics import Estimate, estimates
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["MEASURES", "SIDES", "Judged", "estimate", "publish", "read", "write"]

MEASURES: Final = ("iou", "pdice", "parse_failures")
SIDES: Final = ("ID", "OOD")
"""In and out of distribution."""

_TITLES: Final = ("IoU", "pDice", "unreadable")
_DIFFERENCES: Final = (
    ("soft", "base-released"),
    ("hard", "base-released"),
    ("base", "base-released"),
    ("soft", "base"),
    ("hard", "base"),
    ("soft", "hard"),
    ("soft", "sft"),
    ("sft", "none"),
    ("base-released", "none"),
    ("base", "none"),
    ("hard", "none"),
    ("soft", "none"),
)
"""Pairs of arms, first minus second: hypotheses 1 to 4 in order, then what each arm gained."""

_RESAMPLING: Final = 0
_COLOURS: Final = ("tab:blue", "tab:orange")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """The answers of one arm and seed to one split.

    Attributes
    ----------
    arm, split : str
        As in "soft" and "val".
    seed : int
        Of its training; that of "none" is 0 and stands for all.
    facts : dict of str to float
        Of its training, for the table.
    records : list of dict
        "id", "group", "side" (of `SIDES`) and each of `MEASURES`, in an order all arms share.
    """

    arm: str
    seed: int
    split: str
    facts: dict[str, float]
    records: list[dict[str, Any]]

    def values(self, side: str) -> Floats:
        """Of shape (record, measure)."""
        found = [[r[name] for name in MEASURES] for r in self.records if r["side"] == side]
        return np.array(found, dtype=np.float64).reshape(-1, len(MEASURES))

    def groups(self, side: str) -> list[str]:
        """Patient or image of each record."""
        return [record["group"] for record in self.records if record["side"] == side]


def write(judged: Judged, path: Path) -> None:
    """Write answers, all or nothing."""
    write_text(path, json.dumps(vars(judged)) + "\n")


def read(path: Path) -> Judged:
    """Read what `write` wrote."""
    return Judged(**json.loads(path.read_text(encoding="utf-8")))


def estimate(runs: Sequence[Judged], side: str, minus: Sequence[Judged] = ()) -> list[Estimate]:
    """Means of the measures over records and seeds, each with an interval over patients.

    A record counts with its mean over seeds, and patients are resampled. `minus` are runs of
    another arm, whose mean of the same record is taken away first.
    """
    values = np.mean([run.values(side) for run in runs], axis=0)
    if minus:
        values = values - np.mean([run.values(side) for run in minus], axis=0)
    return estimates(runs[0].groups(side), values, _RESAMPLING)


def publish(results: Sequence[Judged], out: Path) -> None:
    """Write `results.jsonl`, `table.md` and `plot.png` of what there is.

    Table and plot are made of seeds for which every arm is there, so that no arm is judged by
    other seeds than the rest.
    """
    lines = [json.dumps(_line(run, side)) for run in results for side in SIDES]
    write_text(out / "results.jsonl", "".join(line + "\n" for line in lines))
    whole = {split: arms for split in ("val", "test") if (arms := _by_arm(results, split))}
    if whole:
        parts = [_table(split, arms) + _differences(split, arms) for split, arms in whole.items()]
        write_text(out / "table.md", "\n".join(parts))
        _draw(whole, out / "plot.png")


def _line(run: Judged, side: str) -> dict[str, Any]:
    values = run.values(side)
    means = dict(zip(MEASURES, values.mean(axis=0).tolist(), strict=True)) if len(values) else {}
    named = {"arm": run.arm, "seed": run.seed, "split": run.split, "side": side}
    return named | {"records": len(values)} | means | run.facts


def _by_arm(results: Sequence[Judged], split: str) -> dict[str, list[Judged]]:
    """Runs of an arm by seed; only seeds that all arms have, and nothing where there is none."""
    found: dict[str, dict[int, Judged]] = {run.arm: {} for run in results}
    for run in results:
        if run.split == split:
            found[run.arm][run.seed] = run
    trained = [set(runs) for arm, runs in found.items() if arm != "none"]
    seeds = sorted(set.intersection(*trained)) if trained else [0]
    if not seeds or not found.get("none", True):
        return {}
    return {
        arm: list(runs.values()) if arm == "none" else [runs[seed] for seed in seeds]
        for arm, runs in found.items()
    }


def _table(split: str, arms: Mapping[str, Sequence[Judged]]) -> str:
    first = next(iter(arms.values()))[0]
    counts = ", ".join(
        f"{side}: {len(first.groups(side))} records of {len(set(first.groups(side)))} patients"
        for side in SIDES
    )
    seeds = max(len(runs) for runs in arms.values())
    titles = [f"{title} {side}" for side in SIDES for title in _TITLES]
    rows = [
        f"## {split}\n",
        f"{counts}. Mean over records and seeds ({seeds}) [95 %] (lowest to highest seed).\n",
        "| arm | " + " | ".join(titles) + " | groups without variance |",
        "|---" * (len(titles) + 2) + "|",
    ]
    for arm, runs in arms.items():
        cells = [cell for side in SIDES for cell in _cells(runs, side)]
        flat = [run.facts["flat"] for run in runs if "flat" in run.facts]
        rows.append(f"| {arm} | {' | '.join(cells)} | {f'{np.mean(flat):.0%}' if flat else ''} |")
    return "\n".join(rows) + "\n"


def _cells(runs: Sequence[Judged], side: str) -> list[str]:
    if not runs[0].groups(side):
        return [""] * len(MEASURES)
    by_seed = np.array([run.values(side).mean(axis=0) for run in runs])
    low, high = by_seed.min(axis=0), by_seed.max(axis=0)
    return [
        _shown(found) + (f" ({low[i]:.3f} to {high[i]:.3f})" if len(runs) > 1 else "")
        for i, found in enumerate(estimate(runs, side))
    ]


def _shown(found: Estimate, sign: str = "") -> str:
    if found.interval is None:
        return f"{found.mean:{sign}.3f}"
    low, high = found.interval
    return f"{found.mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _differences(split: str, arms: Mapping[str, Sequence[Judged]]) -> str:
    titles = [f"{title} {side}" for side in SIDES for title in _TITLES[:2]]
    rows = [
        f"\n### Differences on {split}, record by record\n",
        "| arms | " + " | ".join(titles) + " |",
        "|---" * (len(titles) + 1) + "|",
    ]
    for first, second in _DIFFERENCES:
        if first in arms and second in arms:
            cells = [cell for side in SIDES for cell in _gaps(arms[first], arms[second], side)]
            rows.append(f"| {first} - {second} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _gaps(first: Sequence[Judged], second: Sequence[Judged], side: str) -> list[str]:
    """Differences of IoU and pDice; the arm that was not trained is the same for all seeds."""
    if not first[0].groups(side):
        return ["", ""]
    others = second if len(second) == len(first) else [second[0]] * len(first)
    by_seed = [
        estimate([ours], side, minus=[theirs]) for ours, theirs in zip(first, others, strict=True)
    ]
    cells = []
    for place, found in enumerate(estimate(first, side, minus=second)[:2]):
        seeds = [gap[place].mean for gap in by_seed]
        spread = f" ({min(seeds):+.3f} to {max(seeds):+.3f})" if len(seeds) > 1 else ""
        cells.append(_shown(found, "+") + spread)
    return cells


def _draw(splits: Mapping[str, Mapping[str, Sequence[Judged]]], path: Path) -> None:
    """A row for each split: IoU and pDice, bars of intervals, a dot for each seed."""
    figure = Figure(figsize=(9, 3.2 * len(splits)), layout="constrained")
    axes = figure.subplots(len(splits), 2, squeeze=False)
    for row, (split, arms) in zip(axes, splits.items(), strict=True):
        for column, axis in enumerate(row):
            _draw_measure(axis, arms, column)
            axis.set(title=f"{split}: {_TITLES[column]}")
    axes[0][0].legend()
    figure.savefig(path, dpi=120)


def _draw_measure(axis: Axes, arms: Mapping[str, Sequence[Judged]], column: int) -> None:
    for offset, side, colour in zip((-0.12, 0.12), SIDES, _COLOURS, strict=True):
        for place, runs in enumerate(arms.values()):
            if not runs[0].groups(side):
                continue
            found, x = estimate(runs, side)[column], place + offset
            label = side if place == 0 else None
            axis.plot(x, found.mean, "o", color=colour, label=label)
            if found.interval is not None:
                axis.vlines(x, *found.interval, color=colour)
            seeds = [run.values(side)[:, column].mean() for run in runs]
            axis.plot([x + 0.1] * len(seeds), seeds, ".", color=colour, alpha=0.5)
    axis.set_xticks(range(len(arms)), list(arms), rotation=20)
    axis.set_ylim(bottom=0)
