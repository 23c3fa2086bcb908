"""A reasoner and a segmenter that tell clients apart: each picture carries a number of its own.

The first two pixels hold the number; trace, box and mask are made of it, so an answer that
reached the wrong client shows. The question says how to answer: `quick`, `slow SECONDS`, or
`flood` (as much text as a reasoner may write, a line at a time).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.grounding import format_answer
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import ReasonerInput, Segmentation

ENDINGS: Final = "MEDREASONER_HARDENING_ENDINGS"
"""Environment variable: file to which each end of a stream is written, "NUMBER HOW TIME"."""

SIDE: Final = 64

_STEP: Final = 0.02
_FLOOD: Final = 190_000
_PIECE: Final = 64

_ENTRY_POINTS: Final = """\
[napari_medreasoner.reasoners]
numbered = engines:NumberedReasoner

[napari_medreasoner.segmenters]
numbered = engines:NumberedSegmenter
"""


def install(folder: Path) -> dict[str, str]:
    """Register the engines for another process; return the environment in which it sees them."""
    metadata = folder / "medreasoner_hardening-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hardening\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(_ENTRY_POINTS)
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(Path(__file__).parent)))}


def picture_of(number: int) -> NDArray[np.uint8]:
    """Return the picture that carries a number below 65,536, of shape (SIDE, SIDE)."""
    picture = np.full((SIDE, SIDE), 90, np.uint8)
    picture[0, :2] = divmod(number, 256)
    return picture


def box_of(number: int) -> Box:
    """Box that the reasoner finds in the picture of a number."""
    y, x = divmod(number % 1600, 40)
    return Box.from_corners(x, y, x + 12, y + 9)


def trace_of(number: int) -> str:
    """How the trace of the picture of a number begins."""
    return f"This picture has the number {number}. "


def _info(name: str) -> EngineInfo:
    return EngineInfo(
        name=name,
        title=name,
        description="Tells pictures apart by the number in their first two pixels.",
        licence="BSD-3-Clause",
        coordinates="pixels of the given image",
        input_window="as displayed",
    )


def _number(image: NDArray[np.uint8]) -> int:
    high, low = (int(value) for value in image[0, :2, 0])
    return high * 256 + low


class NumberedReasoner:
    """Writes the picture's number and a box made of it."""

    info = _info("numbered")

    def __init__(self) -> None:
        # Made once: each path interns its parts, and Python's table of them would double within
        # the soak.
        path = os.environ.get(ENDINGS)
        self._endings = Path(path) if path else None

    def stream(self, request: ReasonerInput) -> Iterator[str]:
        """Answer as the question says."""
        number = _number(request.image)
        box = box_of(number)
        how = "closed"
        try:
            yield from _pieces(number, box, request.question)
            how = "finished"
        finally:
            self._note(number, how)

    def _note(self, number: int, how: str) -> None:
        if self._endings is not None:
            with self._endings.open("a") as file:
                file.write(f"{number} {how} {time.time()}\n")


def _pieces(number: int, box: Box, question: str) -> Iterator[str]:
    points = (Point(x=box.x1 + 2, y=box.y1 + 2), Point(x=box.x1 + 8, y=box.y1 + 6))
    kind, _, seconds = question.partition(" ")
    text = format_answer(trace_of(number), box, points)
    before, end = text.split("</think>")
    yield before
    if kind == "slow":
        for count in range(int(float(seconds) / _STEP)):
            time.sleep(_STEP)
            yield f"word {count} "
    elif kind == "flood":
        yield from ["x" * _PIECE] * (_FLOOD // _PIECE)
    yield f"</think>{end}"


class NumberedSegmenter:
    """Fills the box, in the picture of the right number only."""

    info = _info("numbered")

    def set_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Keep the picture."""
        return image

    def segment(
        self, embedding: NDArray[np.uint8], prompts: Prompts, previous: Any = None
    ) -> Segmentation:
        """Fill the box."""
        mask = np.zeros(embedding.shape[:2], np.bool_)
        if prompts.box is not None:
            mask[prompts.box.slices] = True
        return Segmentation(mask, 0.9)
