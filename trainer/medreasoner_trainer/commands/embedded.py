"""`medreasoner-train embedded …`: the models that ship with the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from medreasoner_trainer.commands.extra import train_extra
from napari_medreasoner.core.errors import SettingsError

__all__ = ["embedded_app"]

_TIERS = ("open", "noncommercial", "unstated")
_ALL = ",".join(_TIERS)

embedded_app = typer.Typer(no_args_is_help=True, help="Train the models that ship.")

Data = Annotated[Path, typer.Option(help="Folder of the data set, with records.jsonl.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Tiers = Annotated[str, typer.Option(help="Licence tiers to train on, with commas between.")]
Seed = Annotated[int, typer.Option(min=0, help="Of weights and draws.")]
Weights = Annotated[Path, typer.Argument(help="Folder of the shipped weights.")]


def _chosen(tiers: str) -> list[str]:
    found = [tier.strip() for tier in tiers.split(",")]
    if unknown := set(found) - set(_TIERS):
        raise SettingsError(f'"{min(unknown)}" is no tier; --tiers takes: {", ".join(_TIERS)}.')
    return found


@embedded_app.command()
def segmenter(
    data: Data,
    out: Out,
    tiers: Tiers = _ALL,
    seed: Seed = 0,
) -> None:
    """Train the U-Net; a run that was broken off goes on."""
    chosen = _chosen(tiers)
    with train_extra("train"):
        from medreasoner_trainer.embedded.recipe import train_segmenter
        from medreasoner_trainer.embedded.segmenter.training import SegmenterRecipe
    train_segmenter(data, out, chosen, SegmenterRecipe(seed=seed), typer.echo)


@embedded_app.command()
def reasoner(
    data: Data,
    out: Out,
    tiers: Tiers = _ALL,
    seed: Seed = 0,
) -> None:
    """Train the small Qwen's eyes, then its language; GRPO may follow."""
    chosen = _chosen(tiers)
    with train_extra("train"):
        from medreasoner_trainer.embedded.reasoner.reading import ReadingRecipe
        from medreasoner_trainer.embedded.reasoner.supervised import STAGES
        from medreasoner_trainer.embedded.reasoner.vision import VisionRecipe
        from medreasoner_trainer.embedded.recipe import train_reasoner
    stages = [replace(stage, seed=stage.seed + seed) for stage in STAGES]
    vision, reading = VisionRecipe(seed=seed), ReadingRecipe(seed=seed)
    train_reasoner(data, out, chosen, vision, reading, stages, typer.echo)


@embedded_app.command()
def ship(
    weights: Weights,
    segmenter: Annotated[Path | None, typer.Option(help="Run of the U-Net.")] = None,
    reasoner: Annotated[Path | None, typer.Option(help="Checkpoint of the small Qwen.")] = None,
) -> None:
    """Write trained models as the package carries them, and their checksums."""
    with train_extra("train"):
        from medreasoner_trainer.embedded.recipe import ship_reasoner, ship_segmenter, write_sums
    if segmenter is not None:
        ship_segmenter(segmenter, weights)
    if reasoner is not None:
        ship_reasoner(reasoner, weights)
    write_sums(weights)
