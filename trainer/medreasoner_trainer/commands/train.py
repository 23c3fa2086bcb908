"""`medreasoner-train sft | grpo | tiny`: train a reasoner, or make a small one to train."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medreasoner_trainer.commands.extra import train_extra
from napari_medreasoner.core.errors import SettingsError

if TYPE_CHECKING:
    from medreasoner_trainer.training.run import Ending

__all__ = ["grpo", "sft", "tiny"]

_TERMINATED = 143
"""Exit code of what a SIGTERM ended: a scheduler starts the run again."""


class Resume(StrEnum):
    """What is done with a run that the folder holds."""

    NEVER = "never"
    AUTO = "auto"


Config = Annotated[str, typer.Option(help="YAML file, or a recipe that ships, such as soft.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.")]
Resuming = Annotated[
    Resume, typer.Option(help="auto: go on from the last whole checkpoint in the folder.")
]
Dry = Annotated[
    bool, typer.Option("--dry-run", help="Show batch, memory and first rewards; do not train.")
]


def sft(
    config: Config,
    out: Out,
    set_: Set = None,
    resume: Resuming = Resume.NEVER,
    dry_run: Dry = False,
) -> None:
    """Fine-tune on the traces and answers of a data set."""
    _train("sft", config, out, set_ or [], resume=resume is Resume.AUTO, dry=dry_run)


def grpo(
    config: Config,
    out: Out,
    set_: Set = None,
    resume: Resuming = Resume.NEVER,
    dry_run: Dry = False,
) -> None:
    """Train with rewards, by group-relative policy optimisation."""
    _train("grpo", config, out, set_ or [], resume=resume is Resume.AUTO, dry=dry_run)


def _train(
    method: str, recipe: str, out: Path, overrides: list[str], *, resume: bool, dry: bool
) -> None:
    with train_extra("train"):
        from medreasoner_trainer.training.dry import dry_run
        from medreasoner_trainer.training.loading import load_config
        from medreasoner_trainer.training.run import Run
    config = load_config(recipe, overrides)
    if config.method != method:
        raise SettingsError(
            f'{recipe} is a recipe for "{config.method}"; run: medreasoner-train {config.method}'
        )
    run = Run.prepared(config, out)
    if dry:
        typer.echo(dry_run(run))
        return
    ending = run.train(resume=resume)
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(_told(out, ending))
    if ending.caught:
        raise typer.Exit(_TERMINATED)


def _told(out: Path, ending: Ending) -> str:
    best = f"; best {ending.best.value:.4f} at step {ending.best.step}" if ending.best else ""
    if ending.caught:
        return f"{out}: stopped by a signal at step {ending.step}{best}; go on with --resume auto."
    return f"{out}: {ending.step} steps{best}."


def tiny(
    out: Annotated[Path, typer.Argument(help="Folder for the model.")],
    parameters: Annotated[str, typer.Option(help="Size, such as 3M.")] = "3M",
    layers: Annotated[int, typer.Option(min=1, max=32, help="Of language and vision each.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
) -> None:
    """Make a small model of Qwen2.5-VL's architecture that knows nothing yet."""
    with train_extra("train"):
        from medreasoner_trainer.training.tiny import make_tiny, parameter_count
    count = make_tiny(out, parameter_count(parameters), layers, seed)
    typer.echo(f"{out}: {count:,} parameters.")
