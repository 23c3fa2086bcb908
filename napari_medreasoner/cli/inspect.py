"""`medreasoner inspect`: what a file holds."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.imaging import Volume, read_sandboxed
from napari_medreasoner.imaging.orientation import axis_letters

__all__ = ["Single", "WhichPart", "inspect"]

WhichPart = Annotated[
    int | None,
    typer.Option(
        "--part", min=1, help="Which image of a folder or file that holds several, from 1."
    ),
]
Single = Annotated[
    int | None,
    typer.Option(min=1, help="One slice, from 1, as a 2D image: for series that make no volume."),
]


def _card(volume: Volume) -> dict[str, Any]:
    """What there is to know about an image, without its intensities or its patient."""
    grid, source = volume.grid, volume.source
    return {
        "shape": list(grid.shape),
        "colour": volume.is_rgb,
        "type": volume.array.dtype.name,
        "spacing_mm": [round(step, 6) for step in grid.spacing] if grid.known else None,
        "geometry": "known" if grid.known else "assumed, one millimetre a pixel",
        "affine_ras": np.round(grid.affine, 6).tolist(),
        "affine_lps": np.round(grid.affine_lps, 6).tolist(),
        "file_shape": list(source.shape) if source else None,
        "file_axes": axis_letters(source.affine) if source else None,
        "file_affine_ras": np.round(source.affine, 6).tolist() if source else None,
        "modality": volume.modality or None,
        "window": volume.window,
        "inverted": volume.inverted,
        "warnings": list(volume.warnings),
    }


def inspect(
    path: Annotated[Path, typer.Argument(help="Image file or DICOM folder.")],
    part: WhichPart = None,
    single: Single = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what a file holds and where it lies in the patient; exit 2 where it is refused."""
    card = _card(read_sandboxed(path, part=part, single=single))
    with _output():
        if as_json:
            sys.stdout.write(json.dumps(card) + "\n")
        else:
            _Terminal().print(_table(card))
        sys.stdout.flush()


class _Terminal(Console):
    """Leaves a reader that has gone to `_output`, where rich would end the process with 1."""

    def on_broken_pipe(self) -> None:
        """Raise it again."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _table(card: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    for name, value in card.items():
        table.add_row(name.replace("_", " "), json.dumps(value))
    return table


@contextmanager
def _output() -> Iterator[None]:
    """Make a full disk, or a reader that has gone, an error of ours.

    Scripts tell by the exit code whether a file is readable: 0 or 2, never anything else.
    """
    try:
        yield
    except OSError as error:
        # What could not be written is still in the buffer, and would be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SettingsError(
            f"The card cannot be written ({error.strerror}); look at what takes the output."
        ) from None
