"""`medreasoner-train export | serve-check`: from a checkpoint to an answering model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medreasoner_trainer.commands.extra import train_extra
from napari_medreasoner.core.errors import AnswerError, SettingsError
from napari_medreasoner.core.prompts import BUILT_IN, PromptTemplate

__all__ = ["export", "serve_check"]


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Argument(help="New folder for the model.")],
    which: Annotated[
        str, typer.Option(help="Checkpoint: best on the validation split, last, or a step.")
    ] = "best",
) -> None:
    """Merge adapters and write a model that the backend loads by its path."""
    with train_extra("train"):
        from medreasoner_trainer.training.export import export as write
    if which not in ("best", "last") and not which.isdigit():
        raise SettingsError(f'--which takes best, last or a step, not "{which}".')
    made = write(run, out, int(which) if which.isdigit() else which)  # type: ignore[arg-type]
    typer.echo(
        f"{out}: step {made.step}; loaded again, its logits differ by {made.difference:.1e} of the "
        "largest."
    )


def serve_check(
    model: Annotated[Path, typer.Argument(help="Folder that export wrote.")],
    device: Annotated[str, typer.Option(help="auto, or as torch names it.")] = "auto",
    prompt: Annotated[
        str, typer.Option(help="Template that it was trained with: built-in, or a TOML file.")
    ] = "Reasoning",
) -> None:
    """Load a model as the backend does and ask it one question about a sample picture."""
    with train_extra("train"):
        from medreasoner_trainer.training.serving import serve_check as ask
    template = BUILT_IN.get(prompt) or PromptTemplate.from_file(Path(prompt))
    served = ask(model, template, device)
    typer.echo(f"Question: {served.question}\nAnswer: {served.text}")
    if isinstance(served.answer, AnswerError):
        raise served.answer
    typer.echo(f"Box: {list(served.answer.box.corners)}")
