"""`medreasoner-train score`: every reward component of completions in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO, TypeVar

import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from medreasoner_trainer.rewards.score import PRESETS
from medreasoner_trainer.rewards.score import score as judge
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import VARIANTS
from napari_medreasoner.core.errors import InputError, ReadError, SettingsError
from napari_medreasoner.core.geometry import Corners, Pair
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = ["score"]

_Choice = TypeVar("_Choice")


class _GroundTruth(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    bbox_2d: Corners
    point_2d: Pair


class _Line(BaseModel):
    """The fields of one line that are used; it may have more."""

    model_config = ConfigDict(strict=True)

    completion: str
    ground_truth: _GroundTruth
    image_size: tuple[int, int] | None = None


def score(
    file: Annotated[Path, typer.Argument(help="JSONL: completion, ground_truth, image_size.")],
    preset: Annotated[str, typer.Option(help=f"One of: {', '.join(PRESETS)}.")] = "soft",
    variant: Annotated[str, typer.Option(help=f"One of: {', '.join(VARIANTS)}.")] = "released",
    output: Annotated[
        Path | None, typer.Option(help="File to write; else standard output.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first line that is wrong.")] = False,
) -> None:
    """Write every reward component of each completion, one JSON object a line.

    A line that is wrong is reported and left out; "line" in the output is the line's number in
    the file. An image_size is [width, height]; without one 840 x 840 is taken, as in the data the
    thresholds are tuned to.
    """
    rules = _chosen(PRESETS, preset, "preset"), _chosen(VARIANTS, variant, "variant")
    scored, total = 0, 0.0
    with ExitStack() as stack:
        target = _target(stack, output)
        for number, completion, truth in _lines(file, strict=strict):
            parts = judge(completion, truth, *rules)
            target.write(json.dumps({"line": number, **parts}, allow_nan=False) + "\n")
            scored, total = scored + 1, total + parts["score"]
    mean = f", mean score {total / scored:.4f}" if scored else ""
    sys.stderr.write(f"{file}: {scored} completions scored{mean}.\n")


def _chosen(among: Mapping[str, _Choice], name: str, what: str) -> _Choice:
    if name not in among:
        raise SettingsError(f'There is no {what} "{name}"; choose one of: {", ".join(among)}.')
    return among[name]


def _target(stack: ExitStack, output: Path | None) -> TextIO:
    if output is None:
        return sys.stdout
    temporary = stack.enter_context(replace_atomically(output))
    return stack.enter_context(temporary.open("w", encoding="utf-8"))


def _lines(file: Path, *, strict: bool) -> Iterator[tuple[int, str, Truth]]:
    """Number from 1, completion and truth of the usable lines.

    The others are reported, or with `strict` raised.
    """
    try:
        stream = file.open("rb")
    except OSError as error:
        raise ReadError(f"{file} cannot be read ({error.strerror}).") from error
    with stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.strip():
                continue
            try:
                line = _Line.model_validate_json(raw)
                given = line.ground_truth
                truth = Truth(given.bbox_2d, given.point_2d, line.image_size).checked()
            except (ValidationError, InputError) as error:
                message = f"{file}, line {number}: {_reason(error)}"
                if strict:
                    raise ReadError(message) from error
                sys.stderr.write(message + "\n")
            else:
                yield number, line.completion, truth


def _reason(error: ValidationError | InputError) -> str:
    if isinstance(error, InputError):
        return str(error)
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"]))) + "."
