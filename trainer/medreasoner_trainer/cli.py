"""Command line of the training side: `medreasoner-train`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from medreasoner_trainer.commands import cluster, deploy, evaluate, train
from medreasoner_trainer.commands.data import data_app, from_corrections
from medreasoner_trainer.commands.embedded import embedded_app
from medreasoner_trainer.commands.extra import train_extra
from medreasoner_trainer.commands.score import score
from napari_medreasoner.core.errors import MedReasonerError

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("eval")(evaluate.evaluate)
app.command()(evaluate.tables)
app.command()(evaluate.report)
app.add_typer(data_app, name="data")
app.command()(from_corrections)
app.command()(score)
app.command()(train.sft)
app.command()(train.grpo)
app.command()(train.tiny)
app.command()(deploy.export)
app.command()(deploy.serve_check)
app.add_typer(embedded_app, name="embedded")
app.command()(cluster.slurm)
app.command()(cluster.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("napari-medreasoner"))
        raise typer.Exit


@app.callback()
def medreasoner_train(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Derive numbers and train models for napari-medreasoner."""


@app.command()
def priors(
    data: Annotated[Path, typer.Option(help="Folder of the data set, with records.jsonl.")],
    output: Annotated[Path, typer.Option(help="File to write, such as priors.json.")],
) -> None:
    """Derive what the prior reasoner knows from the training split of a data set."""
    with train_extra():
        from medreasoner_trainer.priors import derive_priors, write_priors
    derived = derive_priors(data)
    write_priors(derived, output)
    where = derived.provenance
    typer.echo(f"{output}: from {where.records} records of {where.images} images.")


def main() -> None:
    """Run the command line; an error is one sentence on standard error."""
    try:
        app()
    except MedReasonerError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
