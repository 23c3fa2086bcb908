"""Training curves as one picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["Curve", "draw_curves"]

Curve = tuple[str, Path, tuple[str, ...]]
"""Title, log of a `Loop`, and the names of what is drawn."""


def draw_curves(curves: Sequence[Curve], path: Path) -> None:
    """Draw each log beside the others into a PNG file."""
    figure = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (title, log, names) in zip(axes, curves, strict=True):
        lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        for name in names:
            found = [(line["step"], line[name]) for line in lines if name in line]
            axis.plot(*zip(*found, strict=True), marker=".", label=name.replace("_", " "))
        axis.set(title=title, xlabel="step")
        axis.legend()
    figure.savefig(path, dpi=120)
