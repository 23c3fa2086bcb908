"""Completions drawn over their pictures: a sheet (PNG) and a page that opens from disk (HTML)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from medreasoner_trainer.evaluation.case import Case
from medreasoner_trainer.evaluation.overlay import draw_case
from medreasoner_trainer.training.examples import Examples
from napari_medreasoner.core.grounding import parse_halves
from napari_medreasoner.imaging.writers.atomic import make_folder, write_bytes, write_text

__all__ = ["Shown", "write_pages"]

_COLUMNS: Final = 4
_SIDE: Final = 384
_STYLE: Final = (
    "body{font:15px/1.4 sans-serif;margin:2em;max-width:70em}"
    "section{display:flex;gap:1.5em;margin:1.5em 0}img{width:320px;height:auto;align-self:start}"
    "pre{white-space:pre-wrap;margin:.3em 0}td{padding:0 1em 0 0}"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A completion that is shown.

    Attributes
    ----------
    index : int
        Of the record.
    text : str
        The completion.
    values : dict of str to float
        Rewards or scores, by name.
    """

    index: int
    text: str
    values: dict[str, float]


def write_pages(
    folder: Path, step: int, parts: Sequence[tuple[str, Examples, Sequence[Shown]]]
) -> Path:
    """Write `step-N.html` and `step-N.png`, truth in blue and answer in orange.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    step : int
        Of the run.
    parts : sequence of (str, Examples, sequence of Shown)
        Heading, where the records are, and what is shown.

    Returns
    -------
    Path
        Of the PNG.

    Raises
    ------
    ExportError
        When a file cannot be written.
    """
    make_folder(folder)
    body, pictures = [], []
    for heading, examples, rows in parts:
        body.append(f"<h2>{escape(heading)}</h2>")
        for row in rows:
            picture = _draw(examples, row)
            pictures.append(picture)
            body.append(_section(examples, row, picture))
    title = f"Step {step}"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>Blue is the truth, orange the answer.</p>{''.join(body)}</html>\n"
    )
    write_text(folder / f"step-{step:06d}.html", page)
    sheet = folder / f"step-{step:06d}.png"
    write_bytes(sheet, _sheet(pictures))
    return sheet


def _draw(examples: Examples, row: Shown) -> bytes:
    """The stored picture with truth and answer, as JPEG."""
    record, scale = examples.records[row.index], examples.scale(row.index)
    halves = parse_halves(row.text, *scale.shown)
    case = Case(
        id=record.id,
        group=record.group,
        modality=record.modality,
        supercategory=record.supercategory,
        category=record.category,
        question=record.question,
        bbox=scale.stored_corners(halves.box) if halves.box else None,
        points=scale.stored_points(halves.points) if halves.points else None,
        seconds=0,
    )
    data = examples.data
    return draw_case(data.image(record), data.mask(record), record, case)


def _section(examples: Examples, row: Shown, picture: bytes) -> str:
    record = examples.records[row.index]
    source = base64.b64encode(picture).decode("ascii")
    cells = "".join(
        f"<tr><td>{escape(name)}</td><td>{value:.3f}</td></tr>"
        for name, value in row.values.items()
    )
    return (
        f'<section><img alt="{escape(record.id)}" src="data:image/jpeg;base64,{source}"><div>'
        f"<b>{escape(record.question)}</b><pre>{escape(row.text)}</pre><table>{cells}</table>"
        "</div></section>"
    )


def _sheet(pictures: Sequence[bytes]) -> bytes:
    """All pictures on one, side by side."""
    columns = min(_COLUMNS, max(1, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    sheet = Image.new("RGB", (columns * _SIDE, rows * _SIDE))
    for place, picture in enumerate(pictures):
        left, top = place % columns * _SIDE, place // columns * _SIDE
        sheet.paste(Image.open(BytesIO(picture)), (left, top))
    stream = BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()
