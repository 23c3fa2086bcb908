"""What can be read of a model's text, usable or not: the one parser of answers.

Every search is a plain substring search, so the work is linear in the text's length
whatever the text is.
"""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum
from math import isfinite
from typing import Any, Final, NamedTuple

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Corners, Pair

__all__ = [
    "AnswerFault",
    "Forgiven",
    "Layout",
    "Reading",
    "TagPlaces",
    "read_answer",
    "read_value",
]

_THINK: Final = ("<think>", "</think>")
_ANSWER: Final = ("<answer>", "</answer>")
_LENGTHS: Final = {"bbox": 4, "points_1": 2, "points_2": 2}
_NUMBERS: Final = (int, float)
_FAR: Final = 2**31
_DECODER: Final = json.JSONDecoder()


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


class TagPlaces(NamedTuple):
    """Where the four tags stand first, the closing ones after their opening one; else -1."""

    think: int
    thought: int
    answer: int
    answered: int


class Reading(NamedTuple):
    """Whatever can be read of a model's text.

    Attributes
    ----------
    text : str
        The whole of it.
    places : TagPlaces
        Of the first think block and the first answer block.
    forgiven : Forgiven
        What had to be overlooked to read the answer.
    bbox : tuple of four float, or AnswerError
        x1, y1, x2, y2 as written and finite, or what is wrong with them.
    points : tuple of two (float, float), or AnswerError
        (x, y) of P1 and P2, likewise.
    """

    text: str
    places: TagPlaces
    forgiven: Forgiven
    bbox: Corners | AnswerError
    points: Pair | AnswerError

    @property
    def trace(self) -> str:
        """Content of the first think block, which an answer block or the end cuts short."""
        think, thought, answer, _ = self.places
        if think < 0:
            return ""
        end = thought if thought >= 0 else len(self.text)
        end = answer if think < answer < end else end
        return self.text[think + len(_THINK[0]) : end].strip()

    @property
    def layout(self) -> Layout:
        """How near the text comes to the format."""
        whole = self.text.strip()
        framed = (
            whole.startswith(_THINK[0])
            and whole.endswith(_ANSWER[1])
            and whole[: whole.find(_ANSWER[0])].rstrip().endswith(_THINK[1])
        )
        if not framed:
            return Layout.SCATTERED
        # Four tags have four "<": counting those is quick and mostly settles it.
        tags = (*_THINK, *_ANSWER)
        exact = whole.count("<") == len(tags) or all(whole.count(tag) == 1 for tag in tags)
        return Layout.EXACT if exact else Layout.FRAMED


def read_answer(text: str) -> Reading:
    """Read of a model's text whatever can be read; never raises.

    `parse_answer`, `parse_halves` and the training rewards all stand on this one reading and
    differ in how much of what it forgave they accept.
    """
    places = _find_tags(text)
    found = _read_object(text, places)
    if isinstance(found, AnswerError):
        return Reading(text, places, Forgiven.NOTHING, found, found)
    fields, forgiven = found
    return Reading(text, places, forgiven, _numbers(fields, "bbox"), _read_points(fields))


def read_value(text: str) -> Any | AnswerError:
    """Read the JSON value of the first answer block, forgiving as for a user; never raises."""
    found = _read_value(text, _find_tags(text))
    return found if isinstance(found, AnswerError) else found[0]


def _fault(fault: AnswerFault, message: str) -> AnswerError:
    return AnswerError(message, fault=fault.value)


def _find_tags(text: str) -> TagPlaces:
    think, answer = text.find(_THINK[0]), text.find(_ANSWER[0])
    thought = text.find(_THINK[1], think) if think >= 0 else -1
    answered = text.find(_ANSWER[1], answer) if answer >= 0 else -1
    return TagPlaces(think, thought, answer, answered)


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


def _read_value(text: str, places: TagPlaces) -> tuple[Any, Forgiven] | AnswerError:
    closed = places.answered >= 0
    begin = places.answer + len(_ANSWER[0])
    end = places.answered if closed else len(text)
    body = text[begin:end].strip() if places.answer >= 0 else ""
    if not body:
        return _fault(AnswerFault.NO_ANSWER, "The model gave no answer block.")
    value, forgiven = _load_forgiving(body)
    if value is _load:
        return _fault(AnswerFault.NOT_JSON, "The model's answer is not JSON.")
    return value, forgiven if closed else Forgiven.NO_END


def _read_object(text: str, places: TagPlaces) -> tuple[dict[str, Any], Forgiven] | AnswerError:
    found = _read_value(text, places)
    if isinstance(found, AnswerError):
        return found
    value, forgiven = found
    if not isinstance(value, dict):
        return _fault(AnswerFault.NOT_AN_OBJECT, "The model's answer is JSON, but not an object.")
    if isinstance(value.get("refusal"), str):
        return _fault(AnswerFault.REFUSED, value["refusal"])
    return value, forgiven


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
