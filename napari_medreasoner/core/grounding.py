"""A model's text `<think>…</think><answer>{…}</answer>` read as trace, box and two points.

Inference and training rewards read answers with this code and no other. Coordinates in an
`Answer` are what the model wrote, in pixels of the image it was shown; `Answer.on_image`
turns them into whole pixels of that image.

Every search is a plain substring search, so the work is linear in the text's length
whatever the text is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, Final, NoReturn

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Box, Point

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

_THINK: Final = ("<think>", "</think>")
_ANSWER: Final = ("<answer>", "</answer>")
_LENGTHS: Final = {"bbox": 4, "points_1": 2, "points_2": 2}


class AnswerFault(StrEnum):
    """Why a text is refused."""

    NO_ANSWER = "no_answer"
    REFUSED = "refused"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_KEY = "missing_key"
    WRONG_LENGTH = "wrong_length"
    NOT_A_NUMBER = "not_a_number"
    EMPTY_BOX = "empty_box"
    OUTSIDE = "outside"
    NOT_THE_FORMAT = "not_the_format"


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
    bbox: tuple[float, float, float, float]
    points: tuple[tuple[float, float], tuple[float, float]]

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


def _box_on_image(bbox: tuple[float, ...], width: int, height: int) -> Box:
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


def _points_on_image(
    points: Iterable[tuple[float, ...]], width: int, height: int
) -> tuple[Point, Point]:
    p1, p2 = (
        Point(x=min(max(round(x), 0), width - 1), y=min(max(round(y), 0), height - 1))
        for x, y in points
    )
    return p1, p2


def _between(text: str, tags: tuple[str, str], start: int = 0) -> tuple[str, int] | None:
    """Text between the first opening tag and the closing tag after it, and where it ends."""
    opening = text.find(tags[0], start)
    if opening < 0:
        return None
    begin = opening + len(tags[0])
    closing = text.find(tags[1], begin)
    return (text[begin:closing], closing + len(tags[1])) if closing >= 0 else (text[begin:], -1)


def _require_format(text: str) -> None:
    """Training: exactly one think block, then exactly one answer block, nothing else."""
    tags = (*_THINK, *_ANSWER)
    if any(text.count(tag) != 1 for tag in tags):
        _refuse(AnswerFault.NOT_THE_FORMAT, "Each of the four tags must occur exactly once.")
    places = [text.find(tag) for tag in tags]
    gap = text[places[1] + len(_THINK[1]) : places[2]]
    around = text[: places[0]] + text[places[3] + len(_ANSWER[1]) :]
    if places != sorted(places) or gap.strip() or around.strip():
        _refuse(
            AnswerFault.NOT_THE_FORMAT,
            "The text must be one think block and then one answer block, with nothing around.",
        )


def _constant(name: str) -> NoReturn:
    raise _NotFinite(name)


class _NotFinite(Exception):
    """NaN or Infinity spelled out in the JSON."""


def _load(source: str) -> Any:
    """JSON value of a string; NaN and Infinity are refused instead of let through."""
    try:
        return json.loads(source, parse_constant=_constant)
    except _NotFinite as error:
        _refuse(AnswerFault.NOT_A_NUMBER, f"The model's answer holds {error}, not a number.")
    except (ValueError, RecursionError):
        return _load  # a value JSON cannot produce


def _load_object(body: str, *, strict: bool) -> dict[str, Any]:
    value = _load(body)
    if value is _load and not strict:
        # The first flat {...}: leaves out code fences, comments before and junk after.
        opening = body.find("{")
        closing = body.find("}", opening)
        if 0 <= opening < closing:
            flat = body[opening : closing + 1]
            value = _load(flat)
            if value is _load:
                value = _load(flat.replace("'", '"'))
    if value is _load:
        _refuse(AnswerFault.NOT_JSON, "The model's answer is not JSON.")
    if not isinstance(value, dict):
        _refuse(AnswerFault.NOT_AN_OBJECT, "The model's answer is JSON, but not an object.")
    return value


def _numbers(fields: dict[str, Any], key: str) -> tuple[float, ...]:
    value = fields[key]
    if not isinstance(value, list) or len(value) != _LENGTHS[key]:
        _refuse(AnswerFault.WRONG_LENGTH, f'"{key}" must be a list of {_LENGTHS[key]} numbers.')
    for item in value:
        # bool is an int in Python; an int beyond float's range cannot be a coordinate.
        number = isinstance(item, int | float) and not isinstance(item, bool)
        if not number or not isfinite(item if isinstance(item, float) else min(abs(item), 2**53)):
            _refuse(AnswerFault.NOT_A_NUMBER, f'"{key}" holds {item!r:.40}, not a number.')
        if abs(item) >= 2**31:
            _refuse(AnswerFault.OUTSIDE, f'"{key}" holds a number far outside any image.')
    return tuple(float(item) for item in value)


def _read_object(text: str, *, strict: bool) -> dict[str, Any]:
    found = _between(text, _ANSWER)
    if found is None or not found[0].strip():
        _refuse(AnswerFault.NO_ANSWER, "The model gave no answer block.")
    fields = _load_object(found[0].strip(), strict=strict)
    if isinstance(fields.get("refusal"), str):
        _refuse(AnswerFault.REFUSED, fields["refusal"])
    return fields


def _require(fields: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if key not in fields:
            _refuse(AnswerFault.MISSING_KEY, f'The model\'s answer lacks "{key}".')


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
    if strict:
        _require_format(text)
    think = _between(text, _THINK)
    fields = _read_object(text, strict=strict)
    _require(fields, *_LENGTHS)
    x1, y1, x2, y2 = _numbers(fields, "bbox")
    (ax, ay), (bx, by) = _numbers(fields, "points_1"), _numbers(fields, "points_2")
    if strict and (x1 >= x2 or y1 >= y2):
        _refuse(AnswerFault.EMPTY_BOX, "The box's corners are not in order.")
    if strict and (ax, ay) == (bx, by):
        _refuse(AnswerFault.NOT_THE_FORMAT, "The two points are the same.")
    trace = think[0].split(_ANSWER[0])[0].strip() if think else ""
    return Answer(trace, (x1, y1, x2, y2), ((ax, ay), (bx, by)))


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
    try:
        fields = _read_object(text, strict=False)
    except AnswerError as error:
        return Halves(error=error)
    box = points = fault = None
    try:
        _require(fields, "points_1", "points_2")
        pair = (_numbers(fields, "points_1"), _numbers(fields, "points_2"))
        points = _points_on_image(pair, width, height)
    except AnswerError as error:
        fault = error
    try:
        _require(fields, "bbox")
        box = _box_on_image(_numbers(fields, "bbox"), width, height)
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
