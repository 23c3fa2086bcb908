"""`medreasoner models`: what there is, what is here, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from napari_medreasoner.core.errors import WeightsError
from napari_medreasoner.engines.models.card import ModelCard, ModelFile
from napari_medreasoner.engines.models.catalogue import card_of, catalogue
from napari_medreasoner.engines.models.folder import (
    Manifest,
    faults_of,
    folder_of,
    require_folder,
)
from napari_medreasoner.engines.models.pull import pull as pull_model

__all__ = ["models"]

models = typer.Typer(
    help="The models that engines load: list them, fetch them, check them.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="As `medreasoner models list` has it.")]
Folder = Annotated[
    Path | None, typer.Option("--models", help="Folder of all models; else MEDREASONER_MODELS.")
]


def _state(card: ModelCard, folder: Path | None) -> str:
    if card.family == "openai":
        return "remote"
    place = folder_of(card, folder)
    if not place.is_dir():
        return "-"
    return "damaged" if any(faults_of(place, hashes=False)) else "here"


@models.command("list")
def list_(folder: Folder = None) -> None:
    """List the models of the catalogue, and which of them are here."""
    table = Table("name", "role", "here", "answers", "GPU GiB", "licence", box=None)
    for card in catalogue().values():
        memory = f"{card.vram_gib:g}" if card.vram_gib else "-"
        table.add_row(
            card.name, card.role, _state(card, folder), card.answers, memory, card.licence
        )
    Console(soft_wrap=True).print(table)


@models.command()
def info(name: Name, folder: Folder = None) -> None:
    """Tell all that is known of one model."""
    card = card_of(name)
    place = folder_of(card, folder)
    manifest = Manifest.read(place) if place.is_dir() else None
    facts = {
        "title": card.title,
        "what": card.description,
        "role": card.role,
        "family": card.family,
        "repository": card.repository or "none",
        "revision": manifest.revision if manifest else card.revision,
        "licence": card.licence,
        "coordinates": card.coordinates,
        "answers": card.answers,
        "input": card.input_limits or "not stated",
        "GPU memory": f"{card.vram_gib:g} GiB" if card.vram_gib else "not stated",
        "folder": f"{place} ({_state(card, folder)})",
    }
    for key, value in facts.items():
        typer.echo(f"{key}: {value}")
    for file in manifest.files if manifest else card.files:
        typer.echo(f"file: {file.path} {file.size or '?'} bytes sha256 {file.sha256 or '?'}")


@models.command()
def pull(name: Name, folder: Folder = None) -> None:
    """Fetch a model from the hub, or what is missing of it; resumed where it was cut."""

    def tell(file: ModelFile) -> None:
        typer.echo(f"{file.path} ({file.size / 2**20:.1f} MiB)", err=True)

    typer.echo(pull_model(card_of(name), folder, tell))


@models.command()
def verify(name: Name, folder: Folder = None) -> None:
    """Read every file of a model again and compare it with what was pulled."""
    card = card_of(name)
    place = require_folder(card, folder)
    manifest = Manifest.read(place)
    if manifest is None:
        raise WeightsError(
            f"{place} was not pulled, so there is nothing to compare it with; its files are "
            "checked when they are loaded."
        )
    faults = list(faults_of(place))
    if faults:
        raise WeightsError(
            f"{'; '.join(faults)}; fetch it again with: medreasoner models pull {name}"
        )
    typer.echo(f"{place}: {len(manifest.files)} files as pulled from {manifest.repository}")


@models.command()
def path(name: Name, folder: Folder = None) -> None:
    """Print a model's folder; it must be there."""
    typer.echo(require_folder(card_of(name), folder))
