"""The commands and what all of them share: one sentence per error, exit 2 or 1."""

from __future__ import annotations

import sys

import typer

from napari_medreasoner.cli.ask import ask
from napari_medreasoner.cli.convert import convert
from napari_medreasoner.cli.demo import demo
from napari_medreasoner.cli.doctor import doctor, install_system
from napari_medreasoner.cli.inspect import inspect
from napari_medreasoner.cli.models import models
from napari_medreasoner.cli.serve import serve
from napari_medreasoner.core.errors import MedReasonerError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Ask a medical image a clinical question. Research use only; not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, ask, inspect, convert, serve, doctor, install_system):
    app.command()(command)
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line; report any error of ours as one sentence on stderr."""
    try:
        app()
    except MedReasonerError as error:
        sys.stderr.write(f"medreasoner: {error}\n")
        sys.exit(error.exit_code)
