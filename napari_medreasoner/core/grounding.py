"""A model's text `<think>…</think><answer>{…}</answer>` read as trace, box and two points.

Coordinates in an `Answer` are what the model wrote, in pixels of the image it was shown;
`Answer.on_image` turns them into whole pixels of that image. Reading itself is done in
`napari_medreasoner.core.reading`, for training rewards as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Box, Corners, Pair, Point
from napari_medreasoner.core.reading import AnswerFault, Forgiven, Layout, read_answer

__all__ = [
    "Answer",
    "AnswerFault",
    "Grounding",
    "Halves",
    "format_answer",
    "format_refusal",
    "parse_answer",
    "parse_halves",
]

_Part = TypeVar("_Part")


def _refuse(fault: AnswerFault, message: str) -> NoReturn:
    raise AnswerError(message, fault=fault.value)


@dataclass(frozen=True, slots=True)
class Grounding:
    """Where the model says the target is, in whole pixels of the image.

    Attributes
    ----------
    trace : str
        The reasoning, without its tags; empty when there was none.
    box : Box
        Inside the image.
    points : tuple of two Point
        P1 and P2, both inside the image and positive.
    """

    trace: str
    box: Box
    points: tuple[Point, Point]


@dataclass(frozen=True, slots=True)
class Answer:
    """The numbers a model wrote, finite but otherwise as they stand.

    Attributes
    ----------
    trace : str
        Content of the think block.
    bbox : tuple of four float
        x1, y1, x2, y2 in pixels of the image shown to the model.
    points : tuple of two (float, float)
        (x, y) of P1 and P2.
    """

    trace: str
    bbox: Corners
    points: Pair

    def on_image(self, width: int, height: int) -> Grounding:
        """Round to whole pixels, put swapped corners in order, clip to the image.

        Raises
        ------
        AnswerError
            `EMPTY_BOX` when the rounded box has no area, `OUTSIDE` when it or both points
            miss the image altogether.
        """
        box = _box_on_image(self.bbox, width, height)
        return Grounding(self.trace, box, _points_on_image(self.points, width, height))


@dataclass(frozen=True, slots=True)
class Halves:
    """As much of an answer as can be used, for scoring models that give only a part.

    Attributes
    ----------
    box : Box or None
        Inside the image; None when the model gave no usable one.
    points : tuple of two Point, or None
        Inside the image; None when the model gave no usable pair.
    error : AnswerError or None
        What is wrong with the first half that is missing.
    """

    box: Box | None = None
    points: tuple[Point, Point] | None = None
    error: AnswerError | None = None


def _box_on_image(bbox: Corners, width: int, height: int) -> Box:
    x1, x2 = sorted((round(bbox[0]), round(bbox[2])))
    y1, y2 = sorted((round(bbox[1]), round(bbox[3])))
    if x1 == x2 or y1 == y2:
        _refuse(AnswerFault.EMPTY_BOX, f"The model's box {list(bbox)} has no area.")
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        _refuse(
            AnswerFault.OUTSIDE,
            f"The model's box {list(bbox)} lies outside the image of {width} x {height} pixels.",
        )
    return Box.from_corners(max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))


def _points_on_image(points: Pair, width: int, height: int) -> tuple[Point, Point]:
    p1, p2 = (
        Point(x=min(max(round(x), 0), width - 1), y=min(max(round(y), 0), height - 1))
        for x, y in points
    )
    return p1, p2


def _required(part: _Part | AnswerError) -> _Part:
    if isinstance(part, AnswerError):
        raise part
    return part


def parse_answer(text: str, *, strict: bool = False) -> Answer:
    """Read a model's text.

    Parameters
    ----------
    text : str
        The whole completion.
    strict : bool
        False, for a user: single quotes, code fences, text around the blocks, a missing
        think block and an unclosed answer block are forgiven. True, for training: the exact
        format, JSON as it is defined, corners in order and distinct points.

    Returns
    -------
    Answer
        With finite numbers only.

    Raises
    ------
    AnswerError
        Its `fault` is the `AnswerFault` that says why. An answer object with the key
        "refusal" is the model's own refusal, and its value the sentence.
    """
    reading = read_answer(text)
    if strict and reading.layout is not Layout.EXACT:
        _refuse(
            AnswerFault.NOT_THE_FORMAT,
            "The text must be one think block and then one answer block, with nothing around.",
        )
    if strict and reading.forgiven is not Forgiven.NOTHING:
        _refuse(AnswerFault.NOT_JSON, "The model's answer is not JSON.")
    bbox, points = _required(reading.bbox), _required(reading.points)
    x1, y1, x2, y2 = bbox
    if strict and (x1 >= x2 or y1 >= y2):
        _refuse(AnswerFault.EMPTY_BOX, "The box's corners are not in order.")
    if strict and points[0] == points[1]:
        _refuse(AnswerFault.NOT_THE_FORMAT, "The two points are the same.")
    return Answer(reading.trace, bbox, points)


def parse_halves(text: str, width: int, height: int) -> Halves:
    """Read box and points of a model's text each by itself, forgiving as for a user.

    A box that is missing, malformed or outside the image does not take the points with it,
    nor the other way round.

    Parameters
    ----------
    text : str
        The whole completion.
    width, height : int
        Of the image, in pixels.
    """
    reading = read_answer(text)
    box = points = fault = None
    try:
        points = _points_on_image(_required(reading.points), width, height)
    except AnswerError as error:
        fault = error
    try:
        box = _box_on_image(_required(reading.bbox), width, height)
    except AnswerError as error:
        fault = error
    return Halves(box, points, fault)


def format_answer(trace: str, box: Box, points: tuple[Point, Point]) -> str:
    """Write the text that `parse_answer` reads, as a reasoner without a language model does."""
    p1, p2 = points
    fields = {"bbox": list(box.corners), "points_1": [p1.x, p1.y], "points_2": [p2.x, p2.y]}
    return f"<think>{trace}</think><answer>{json.dumps(fields)}</answer>"


def format_refusal(trace: str, sentence: str) -> str:
    """Write the text of a plain refusal: a trace, and an answer with no coordinates."""
    return f"<think>{trace}</think><answer>{json.dumps({'refusal': sentence})}</answer>"
