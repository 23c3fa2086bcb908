"""`medreasoner inspect`: what a file holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

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
    if as_json:
        sys.stdout.write(json.dumps(card) + "\n")
        return
    table = Table(show_header=False)
    for name, value in card.items():
        table.add_row(name.replace("_", " "), json.dumps(value))
    Console().print(table)
