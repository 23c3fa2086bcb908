"""The paper's tables with a project's own rows, and a run's own figures, as Markdown."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, model_validator

from medreasoner_trainer.evaluation.folder import RunConfig, RunFolder
from medreasoner_trainer.evaluation.statistics import (
    Comparison,
    Estimate,
    Summary,
    compare,
)
from medreasoner_trainer.evaluation.words import TRUE_PROMPTS

__all__ = [
    "TITLES",
    "breakdown",
    "comparison",
    "given",
    "interval",
    "name_of",
    "published_tables",
]

TITLES: Final = {
    "iou": "IoU",
    "hit": "IoU >= 0.5",
    "pdice": "pDice",
    "pdice_released": "pDice released",
    "dice": "Dice",
    "dice_points": "Dice points",
    "dice_box": "Dice box",
    "dice_both": "Dice both",
}
"""What the measures are called."""

_NEEDS_POINTS: Final = {"pdice", "pdice_released", "dice_points"}
_NEEDS_BOX: Final = {"iou", "hit", "dice_box"}
_OF_THE_REASONER: Final = {"iou", "hit", "pdice", "pdice_released", "refused"}
_DASH: Final = "-"


class _Table(BaseModel):
    """One of the paper's tables; see `published.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    title: str
    data: str
    identity: list[str]
    columns: list[str]
    measures: list[str]
    rows: list[list[str | float]]

    @model_validator(mode="after")
    def _rectangular(self) -> _Table:
        width = len(self.identity) + len(self.columns)
        if len(self.measures) != len(self.columns) or any(len(r) != width for r in self.rows):
            raise ValueError(f"table {self.number} is not rectangular")
        return self


def _published() -> list[_Table]:
    text = files("medreasoner_trainer.evaluation").joinpath("published.toml").read_text("utf-8")
    return [_Table.model_validate(table) for table in tomllib.loads(text)["table"]]


def name_of(config: RunConfig) -> str:
    """How a run is called in tables."""
    return f"{config.crm} x {config.asm}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> str:
    """A Markdown table, padded to be read as it is; columns of figures to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*cells, strict=True)]
    padded = [
        [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    rule = [
        "-" * width if column < text_columns else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def published_tables(summaries: Sequence[Summary]) -> str:
    """Tables 2-6 of the paper, each with a row in bold for every run, as Markdown.

    A note under a table says when the published rows are of other data than a run.
    """
    return "\n".join(_with_runs(table, summaries) for table in _published())


def _with_runs(table: _Table, summaries: Sequence[Summary]) -> str:
    start = len(table.identity)
    rows = [
        [
            *map(str, row[:start]),
            *(
                _figure(value, measure)
                for value, measure in zip(row[start:], table.measures, strict=True)
            ),
        ]
        for row in table.rows
    ]
    for summary in summaries:
        asked = "yes" if summary.configuration.prompt == "reasoning" else "no"
        names = [f"**{name_of(summary.configuration)}**", asked][:start]
        rows.append([*names, *(_own(summary, measure) for measure in table.measures)])
    title = f"Table {table.number} of the paper: {table.title} ({table.data})"
    body = _markdown([*table.identity, *table.columns], rows, start)
    return f"{title}\n\n{body}\n\n{_note(table, summaries)}\n"


def _figure(value: str | float, measure: str) -> str:
    if isinstance(value, str):
        return value or _DASH
    return f"{value:.0f}" if measure == "refused" else f"{value:.2f}"


def _own(summary: Summary, measure: str) -> str:
    """A run's figure for a column of the paper."""
    name, _, supercategory = measure.partition(":")
    known = {found.casefold(): group for found, group in summary.supercategory.items()}
    group = known.get(supercategory) if supercategory else summary.overall
    if group is None or not given(summary, name):
        return _DASH
    if name == "refused":
        return str(group.without_answer)
    return f"{100 * group.measures[name].mean:.2f}"


def given(summary: Summary, measure: str) -> bool:
    """Whether the model ever gave what a measure is of; the paper has a dash where not."""
    if summary.configuration.crm == TRUE_PROMPTS and measure in _OF_THE_REASONER:
        return False
    missing = (measure in _NEEDS_POINTS and not summary.points) or (
        measure in _NEEDS_BOX and not summary.boxes
    )
    return not missing


def _note(table: _Table, summaries: Sequence[Summary]) -> str:
    others = [s.configuration for s in summaries if not _of(s.configuration, table.data)]
    if not others:
        return f"Published rows and runs: {table.data}."
    used = ", ".join(sorted({f"{Path(c.data).name} ({c.split}, {c.records})" for c in others}))
    return (
        f"The published rows are of {table.data}, the rows in bold of {used}: other images, so "
        "the figures are not comparable."
    )


def _of(config: RunConfig, data: str) -> bool:
    """Whether a run is of the whole test split of a data set, as its folder is named."""
    plain = "".join(filter(str.isalnum, Path(config.data).stem)).casefold()
    wanted = "".join(filter(str.isalnum, data)).casefold()
    return wanted in plain and config.split == "test" and config.limit is None


def breakdown(summaries: Sequence[Summary]) -> str:
    """Every measure of the runs with its interval, overall and by modality, as Markdown."""
    return "\n".join(_broken_down(summary) for summary in summaries)


def _broken_down(summary: Summary) -> str:
    config = summary.configuration
    groups = {"all": summary.overall, **summary.modality}
    head = ["Modality", "n", *TITLES.values(), "s/case"]
    rows = [
        [
            name,
            str(group.n),
            *(interval(group.measures[m], given=given(summary, m)) for m in TITLES),
            f"{group.seconds:.2f}",
        ]
        for name, group in groups.items()
    ]
    title = (
        f"{name_of(config)} on {Path(config.data).name} ({config.split}), {config.prompt} prompt, "
        f"Dice is that of prompt mode {config.prompt_mode}; per cent, 95 % intervals"
    )
    return f"{title}\n\n{_markdown(head, rows, 1)}\n\n{_counts(summary)}\n"


def interval(estimate: Estimate, *, given: bool = True) -> str:
    """A mean and its interval in per cent; a dash where the model never gave what it is of."""
    if not given:
        return _DASH
    mean = f"{100 * estimate.mean:.1f}"
    if estimate.interval is None:
        return mean
    low, high = (100 * value for value in estimate.interval)
    return f"{mean} [{low:.1f}, {high:.1f}]"


def _counts(summary: Summary) -> str:
    group, config = summary.overall, summary.configuration
    text = (
        f"{group.n} of {config.records} records scored, from {group.clusters} patients or images; "
        f"{group.refused} refused, {group.unparsed} without a usable answer, {group.half} with "
        f"half of one; the reasoner failed on {group.reasoner_failed}, the segmenter on "
        f"{group.segmenter_failed}; {summary.problems} records left out."
    )
    if config.crm == TRUE_PROMPTS:
        text += " The prompts are the truth, so there is no IoU and no pDice."
    return text


def comparison(first: RunFolder, second: RunFolder) -> str:
    """The second run against the first, case by case, as Markdown.

    Where one was given the truth as prompts, only what the segmenters made of them is compared.

    Raises
    ------
    ReadError
        When a folder holds no run.
    InputError
        When the two have no case in common.
    """
    a, b = first.config(), second.config()
    found = compare(first.cases(), second.cases(), (a.prompt_mode, b.prompt_mode), b.seed)
    left_out = _OF_THE_REASONER if TRUE_PROMPTS in (a.crm, b.crm) else set()
    rows = [
        _compared(TITLES[measure], result)
        for measure, result in found.items()
        if measure not in left_out
    ]
    shared = next(iter(found.values())).n
    title = (
        f"{name_of(b)} ({second.path.name}) minus {name_of(a)} ({first.path.name}), "
        f"{shared} shared cases; per cent, 95 % intervals"
    )
    head = ["Measure", "Difference", "Better", "Worse", "p (permutation)"]
    return f"{title}\n\n{_markdown(head, rows, 1)}\n"


def _compared(title: str, result: Comparison) -> list[str]:
    difference = interval(result.difference)
    return [title, difference, str(result.better), str(result.worse), f"{result.p:.4f}"]
