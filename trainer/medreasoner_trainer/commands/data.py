"""`medreasoner-train data`: convert, check, split a data set, and give it questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from medreasoner_trainer.commands.extra import train_extra
from medreasoner_trainer.commands.left_out import Strict, tell_left_out
from napari_medreasoner.core.errors import SettingsError

if TYPE_CHECKING:
    from medreasoner_trainer.data.check import Finding
    from medreasoner_trainer.data.record import DataSet

__all__ = ["data_app"]

data_app = typer.Typer(help="Convert, check and split data sets.", no_args_is_help=True)

_SHOWN: Final = 10
"""Findings of one kind that are printed; `--json` has all."""

Data = Annotated[Path, typer.Argument(help="Folder or file of the data set.")]
Out = Annotated[Path, typer.Argument(help="New folder for the result.")]
Seed = Annotated[int, typer.Option(help="Another seed gives another result.")]


class Form(StrEnum):
    """Files a data set is written as."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    COCO = "coco"
    PAIRS = "pairs"


class Space(StrEnum):
    """What coordinates are written in."""

    PIXEL = "pixel"
    NORM1000 = "norm1000"
    NORM1 = "norm1"


class How(StrEnum):
    """How records are divided."""

    RANDOM = "random"
    GROUP = "group"
    OOD = "ood"


class By(StrEnum):
    """What counts as a kind of target."""

    SUPERCATEGORY = "supercategory"
    CATEGORY = "category"


@data_app.command()
def convert(
    data: Data,
    out: Out,
    to: Annotated[Form, typer.Option(help="Files to write.")],
    space: Annotated[Space, typer.Option(help="Coordinates in records.jsonl.")] = Space.PIXEL,
    strict: Strict = False,
) -> None:
    """Write a data set as JSONL with pictures, U-MRG Parquet, COCO, or images and masks."""
    with train_extra():
        from medreasoner_trainer.data.coco import save_coco
        from medreasoner_trainer.data.jsonl import save_jsonl
        from medreasoner_trainer.data.open import open_data
        from medreasoner_trainer.data.pairs import save_pairs
        from medreasoner_trainer.data.parquet import save_parquet
    if to is not Form.JSONL and space is not Space.PIXEL:
        raise SettingsError(f"{to} has pixel coordinates only; leave out --space.")
    opened = open_data(data, strict=strict)
    if to is Form.JSONL:
        written = save_jsonl(opened, out, space.value, strict=strict)
    else:
        savers = {Form.PARQUET: save_parquet, Form.COCO: save_coco, Form.PAIRS: save_pairs}
        written = savers[to](opened, out, strict=strict)
    _say_written(written, out)


@data_app.command()
def check(
    data: Data,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, complete.")] = False,
) -> None:
    """Count records and look for errors and leaks; exit 1 where something was found."""
    with train_extra():
        from medreasoner_trainer.data.check import COUNTED, check_data, count_records
        from medreasoner_trainer.data.open import open_data
    opened = open_data(data)
    counts = {field: count_records(opened.records, field) for field in COUNTED}
    findings = check_data(opened)
    if as_json:
        report = {
            "records": len(opened.records),
            "images": len({record.image for record in opened.records}),
            "counts": counts,
            "findings": [finding._asdict() for finding in findings],
        }
        typer.echo(json.dumps(report))
    else:
        for field, found in counts.items():
            _show_counts(field, found)
        _show_findings(findings)
    if findings:
        raise typer.Exit(1)


@data_app.command()
def split(
    data: Data,
    out: Out,
    how: Annotated[How, typer.Option(help="Random records, whole groups, or unseen targets.")],
    test: Annotated[
        float,
        typer.Option(
            min=0,
            help="Records held out, below 1 a share of all; with ood, of the groups that show "
            "targets of both sides, how many serve the test.",
        ),
    ] = 0.2,
    seed: Seed = 0,
    by: Annotated[By, typer.Option(help="With ood: what a kind of target is.")] = By.SUPERCATEGORY,
    strict: Strict = False,
) -> None:
    """Divide a data set into train and test."""
    with train_extra():
        from medreasoner_trainer.data.jsonl import save_jsonl
        from medreasoner_trainer.data.open import open_data
        from medreasoner_trainer.data.split import hold_out, hold_out_groups, out_of_distribution
    opened = open_data(data, strict=strict)
    if how is How.OOD:
        records = out_of_distribution(opened.records, test, seed, by.value)
    else:
        holding = hold_out if how is How.RANDOM else hold_out_groups
        records = holding(opened.records, test, seed)
    written = save_jsonl(opened.with_records(records), out, strict=strict)
    _say_written(written, out)
    sizes = Counter(record.split for record in written.records)
    typer.echo(f"{sizes['train']} train, {sizes['test']} test, {sizes['']} in no split.")


@data_app.command()
def ask(data: Data, out: Out, seed: Seed = 0, strict: Strict = False) -> None:
    """Give questions and reasoning to the records that have none."""
    with train_extra():
        from medreasoner_trainer.construct.asking import ask_records
        from medreasoner_trainer.data.jsonl import save_jsonl
        from medreasoner_trainer.data.open import open_data
    asked = ask_records(open_data(data, strict=strict), seed, strict=strict)
    written = save_jsonl(asked, out, strict=strict)
    _say_written(written, out)
    questions = sum(bool(record.question) for record in written.records)
    traces = sum(bool(record.trace) for record in written.records)
    typer.echo(f"{questions} of {len(written.records)} records have a question, {traces} a trace.")


def _say_written(data: DataSet, out: Path) -> None:
    tell_left_out(data.problems)
    typer.echo(f"{out}: {len(data.records)} records, {len(data.problems)} left out as unusable.")


def _show_counts(field: str, counts: dict[str, dict[str, int]]) -> None:
    splits = sorted({split for found in counts.values() for split in found})
    table = Table(field, *(split or "(none)" for split in splits), "total")
    for value, found in counts.items():
        cells = [str(found.get(split, 0)) for split in splits]
        table.add_row(value or "(none)", *cells, str(sum(found.values())))
    Console().print(table)


def _show_findings(findings: Sequence[Finding]) -> None:
    ranked = sorted(findings, key=lambda finding: finding.kind)
    for kind, group in groupby(ranked, key=lambda finding: finding.kind):
        found = list(group)
        typer.echo(f"{kind}: {len(found)}")
        for finding in found[:_SHOWN]:
            typer.echo(f"  {finding.where}: {finding.detail}")
        if len(found) > _SHOWN:
            typer.echo(f"  and {len(found) - _SHOWN} more; --json lists all")
    typer.echo(f"{len(findings)} findings." if findings else "No findings.")
