"""A model's text `<think>…</think><answer>{…}</answer>` read as trace, box and two points.

Inference and training rewards read answers with this code and no other. Coordinates in an
`Answer` are what the model wrote, in pixels of the image it was shown; `Answer.on_image`
turns them into whole pixels of that image.

Every search is a plain substring search, so the work is linear in the text's length
whatever the text is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from math import isfinite
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Box, Corners, Pair, Point

__all__ = [
    "Answer",
    "AnswerFault",
    "Forgiven",
    "Grounding",
    "Halves",
    "Layout",
    "Reading",
    "format_answer",
    "format_refusal",
    "parse_answer",
    "parse_halves",
    "read_answer",
]

_THINK: Final = ("<think>", "</think>")
_ANSWER: Final = ("<answer>", "</answer>")
_LENGTHS: Final = {"bbox": 4, "points_1": 2, "points_2": 2}
_NUMBERS: Final = (int, float)
_FAR: Final = 2**31
_DECODER: Final = json.JSONDecoder()

_Part = TypeVar("_Part")


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


class Layout(IntEnum):
    """How near a text comes to one think block and then one answer block."""

    SCATTERED = 0
    FRAMED = 1
    """It begins with a think block and ends with an answer block, but a tag is repeated."""
    EXACT = 2


class Forgiven(IntEnum):
    """What had to be overlooked to read the answer; each includes the ones before."""

    NOTHING = 0
    QUOTES = 1
    """Single quotes around keys."""
    CLUTTER = 2
    """Code fences, comments, junk after the object."""
    NO_END = 3
    """No closing tag."""


class Reading(NamedTuple):
    """Whatever can be read of a model's text.

    Attributes
    ----------
    trace : str
        Content of the first think block, stripped.
    thought : bool
        Whether there is a think block with its closing tag.
    layout : Layout
        How near the text comes to the format.
    forgiven : Forgiven
        What had to be overlooked to read the answer.
    bbox : tuple of four float, or AnswerError
        x1, y1, x2, y2 as written and finite, or what is wrong with them.
    points : tuple of two (float, float), or AnswerError
        (x, y) of P1 and P2, likewise.
    """

    trace: str
    thought: bool
    layout: Layout
    forgiven: Forgiven
    bbox: Corners | AnswerError
    points: Pair | AnswerError


def _refuse(fault: AnswerFault, message: str) -> NoReturn:
    raise _fault(fault, message)


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


def _fault(fault: AnswerFault, message: str) -> AnswerError:
    return AnswerError(message, fault=fault.value)


class _Places(NamedTuple):
    """Where the four tags stand first, the closing ones after their opening one; else -1."""

    think: int
    thought: int
    answer: int
    answered: int


def _find_tags(text: str) -> _Places:
    think, answer = text.find(_THINK[0]), text.find(_ANSWER[0])
    thought = text.find(_THINK[1], think) if think >= 0 else -1
    answered = text.find(_ANSWER[1], answer) if answer >= 0 else -1
    return _Places(think, thought, answer, answered)


def _trace(text: str, places: _Places) -> str:
    """Content of the first think block, which an answer block cuts short."""
    think, thought, answer, _ = places
    if think < 0:
        return ""
    end = thought if thought >= 0 else len(text)
    return text[think + len(_THINK[0]) : answer if think < answer < end else end].strip()


def _layout(text: str, places: _Places) -> Layout:
    framed = (
        text.startswith(_THINK[0], len(text) - len(text.lstrip()))
        and text.rstrip().endswith(_ANSWER[1])
        and text[: places.answer].rstrip().endswith(_THINK[1])
    )
    if not framed:
        return Layout.SCATTERED
    # Four tags have four "<"; counting those is quick, and mostly settles it.
    tags = (*_THINK, *_ANSWER)
    once = text.count("<") == len(tags) or all(text.count(tag) == 1 for tag in tags)
    return Layout.EXACT if once else Layout.FRAMED


def _load(source: str) -> Any:
    try:
        value, end = _DECODER.raw_decode(source)
    except (ValueError, RecursionError):
        return _load  # a value JSON cannot produce
    return value if end == len(source) else _load


def _load_forgiving(body: str) -> tuple[Any, Forgiven]:
    value = _load(body)
    if value is not _load:
        return value, Forgiven.NOTHING
    value = _load(body.replace("'", '"'))
    if value is not _load:
        return value, Forgiven.QUOTES
    # The first flat {...}: leaves out code fences, comments before and junk after.
    opening = body.find("{")
    closing = body.find("}", opening)
    if 0 <= opening < closing:
        flat = body[opening : closing + 1]
        value = _load(flat)
        if value is _load:
            value = _load(flat.replace("'", '"'))
    return value, Forgiven.CLUTTER


def _read_object(text: str, places: _Places) -> tuple[dict[str, Any], Forgiven] | AnswerError:
    closed = places.answered >= 0
    begin = places.answer + len(_ANSWER[0])
    end = places.answered if closed else len(text)
    body = text[begin:end].strip() if places.answer >= 0 else ""
    if not body:
        return _fault(AnswerFault.NO_ANSWER, "The model gave no answer block.")
    value, forgiven = _load_forgiving(body)
    if value is _load:
        return _fault(AnswerFault.NOT_JSON, "The model's answer is not JSON.")
    if not isinstance(value, dict):
        return _fault(AnswerFault.NOT_AN_OBJECT, "The model's answer is JSON, but not an object.")
    if isinstance(value.get("refusal"), str):
        return _fault(AnswerFault.REFUSED, value["refusal"])
    return value, forgiven if closed else Forgiven.NO_END


def _not_a_coordinate(key: str, item: Any) -> AnswerError:
    if type(item) is int or (type(item) is float and isfinite(item)):
        return _fault(AnswerFault.OUTSIDE, f'"{key}" holds a number far outside any image.')
    return _fault(AnswerFault.NOT_A_NUMBER, f'"{key}" holds {item!r:.40}, not a number.')


def _numbers(fields: dict[str, Any], key: str) -> tuple[Any, ...] | AnswerError:
    if key not in fields:
        return _fault(AnswerFault.MISSING_KEY, f'The model\'s answer lacks "{key}".')
    value = fields[key]
    if not isinstance(value, list) or len(value) != _LENGTHS[key]:
        return _fault(
            AnswerFault.WRONG_LENGTH, f'"{key}" must be a list of {_LENGTHS[key]} numbers.'
        )
    for item in value:
        # By type, not isinstance: bool is an int in Python.
        if type(item) not in _NUMBERS or not -_FAR < item < _FAR:
            return _not_a_coordinate(key, item)
    return tuple(value)


def _read_points(fields: dict[str, Any]) -> Pair | AnswerError:
    first, second = _numbers(fields, "points_1"), _numbers(fields, "points_2")
    if isinstance(first, AnswerError):
        return first
    if isinstance(second, AnswerError):
        return second
    return first, second


def read_answer(text: str) -> Reading:
    """Read of a model's text whatever can be read; never raises.

    `parse_answer`, `parse_halves` and the training rewards all stand on this one reading and
    differ in how much of what it forgave they accept.
    """
    places = _find_tags(text)
    trace, thought, layout = _trace(text, places), places.thought >= 0, _layout(text, places)
    found = _read_object(text, places)
    if isinstance(found, AnswerError):
        return Reading(trace, thought, layout, Forgiven.NOTHING, found, found)
    fields, forgiven = found
    return Reading(trace, thought, layout, forgiven, _numbers(fields, "bbox"), _read_points(fields))


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
