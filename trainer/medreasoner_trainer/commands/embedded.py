"""`medreasoner-train embedded …`: the models that ship with the package."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Annotated, Any

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
Share = Annotated[
    float, typer.Option(min=1e-4, max=1, help="Share of the recipe's steps that are trained.")
]
Weights = Annotated[Path, typer.Argument(help="Folder of the shipped weights.")]


def _chosen(tiers: str) -> list[str]:
    found = [tier.strip() for tier in tiers.split(",")]
    if unknown := set(found) - set(_TIERS):
        raise SettingsError(f'"{min(unknown)}" is no tier; --tiers takes: {", ".join(_TIERS)}.')
    return found


def _varied(recipe: Any, seed: int, share: float) -> Any:
    """The recipe with other draws and fewer steps."""
    return replace(recipe, seed=recipe.seed + seed, steps=ceil(share * recipe.steps))


@embedded_app.command()
def segmenter(
    data: Data,
    out: Out,
    tiers: Tiers = _ALL,
    seed: Seed = 0,
    share: Share = 1.0,
) -> None:
    """Train the U-Net; a run that was broken off goes on."""
    chosen = _chosen(tiers)
    with train_extra("train"):
        from medreasoner_trainer.embedded.recipe import train_segmenter
        from medreasoner_trainer.embedded.segmenter.training import SegmenterRecipe
    train_segmenter(data, out, chosen, _varied(SegmenterRecipe(), seed, share), typer.echo)


@embedded_app.command()
def reasoner(
    data: Data,
    out: Out,
    tiers: Tiers = _ALL,
    seed: Seed = 0,
    share: Share = 1.0,
) -> None:
    """Train the small Qwen's eyes, then its language; GRPO may follow."""
    chosen = _chosen(tiers)
    with train_extra("train"):
        from medreasoner_trainer.embedded.reasoner.reading import ReadingRecipe
        from medreasoner_trainer.embedded.reasoner.supervised import STAGES
        from medreasoner_trainer.embedded.reasoner.vision import VisionRecipe
        from medreasoner_trainer.embedded.recipe import train_reasoner
    recipes = (VisionRecipe(), ReadingRecipe(), *STAGES)
    vision, reading, *stages = (_varied(recipe, seed, share) for recipe in recipes)
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
