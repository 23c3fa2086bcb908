"""A model's own answer turned into the project's: names, coordinates, missing halves.

Models that were trained to locate write what they were trained to write, whatever the prompt
asks for; the names they use are known here. A model that gives only a box, or only points,
gets the other half by a fixed rule, and the trace says that it was added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import dist
from typing import Any, Final, NamedTuple

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Corners, Pair
from napari_medreasoner.core.reading import read_answer, read_value
from napari_medreasoner.engines.models.card import Answers
from napari_medreasoner.engines.reasoners.coordinates import Space

__all__ = ["Rewritten", "box_of_points", "points_of_box", "rewritten"]

_END: Final = "</answer>"
_DIGITS: Final = 2
"""Of a pixel, in what is written."""

_BOX_NAMES: Final = ("bbox_2d", "box_2d")
"""What Qwen2.5-VL and Gemini call a box."""
_POINTS_NAME: Final = "point_2d"
"""What Qwen2.5-VL calls a list of points."""

_NOTES: Final[Mapping[Answers, str]] = {
    "box": (
        "\n[Added by napari-medreasoner, not by the model, which gives a box only: the first "
        "point is the centre of the box, the second lies a quarter of the box's longer side to "
        "the right of it or below it.]\n"
    ),
    "points": (
        "\n[Added by napari-medreasoner, not by the model, which gives points only: the box is "
        "the one around the circle that has the two points at opposite ends.]\n"
    ),
}


class Rewritten(NamedTuple):
    """An answer block in pixels of the image, and what the trace must say was added to it."""

    block: str
    note: str


def points_of_box(corners: Corners) -> Pair:
    """Two points for a model that gives only a box, in the same pixels.

    The first is the centre, the second a quarter of the longer side from it, along that side
    towards larger coordinates: both well inside, and far from each other.
    """
    x1, y1, x2, y2 = corners
    x, y = (x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5  # a point is the index of a pixel
    width, height = abs(x2 - x1), abs(y2 - y1)
    far = (x + width / 4, y) if width >= height else (x, y + height / 4)
    return (x, y), far


def box_of_points(points: Pair) -> Corners:
    """A box for a model that gives only points, in the same pixels.

    It is the square around the circle that has the two points at opposite ends, which is
    what the paper's point score takes two points to stand for (section "Reward", pDice).
    """
    (xa, ya), (xb, yb) = points
    x, y, radius = (xa + xb + 1) / 2, (ya + yb + 1) / 2, dist(*points) / 2
    return x - radius, y - radius, x + radius, y + radius


def rewritten(block: str, space: Space, answers: Answers) -> Rewritten:
    """Rewrite an answer block that a model wrote.

    Parameters
    ----------
    block : str
        From `<answer>` to `</answer>`, or to where the model stopped.
    space : Space
        How it writes places in this image.
    answers : Answers
        What it was trained to give; only the other half is added, and only when it is missing.

    Returns
    -------
    Rewritten
        A block that cannot be read comes back as it is, and a half that is wrong with what is
        wrong in it, so that the parser says what the matter is.
    """
    fields = _fields(read_value(block))
    try:
        reading = read_answer(f"<answer>{json.dumps(fields)}")
    except RecursionError:
        fields = None
    if fields is None:
        return Rewritten(block, "")
    box = points = None
    if not isinstance(reading.bbox, AnswerError):
        box = _visible(space.box_to_image(reading.bbox), space.image)
    if not isinstance(reading.points, AnswerError):
        first, second = reading.points
        points = space.point_to_image(first), space.point_to_image(second)
    given = box, points
    box, points = _completed(box, points, answers)
    note = "" if (box, points) == given else _NOTES[answers]
    if box is not None:
        fields["bbox"] = _written(box)
    if points is not None:
        fields["points_1"], fields["points_2"] = map(_written, points)
    end = _END if block.endswith(_END) else ""
    return Rewritten(f"<answer>{json.dumps(fields)}{end}", note)


def _visible(corners: Corners, image: tuple[int, int]) -> Corners:
    """Corners that still enclose a pixel when rounded, where the model's box had an area at all.

    A picture smaller than what the model was shown would lose its smallest boxes otherwise.
    """
    x1, y1, x2, y2 = corners
    (left, right), (top, bottom) = (
        _opened(low, high, side) for low, high, side in ((x1, x2, image[0]), (y1, y2, image[1]))
    )
    return left, top, right, bottom


def _opened(low: float, high: float, side: int) -> tuple[float, float]:
    inside = min(low, high) >= 0 and max(low, high) <= side
    first, last = (round(round(edge, _DIGITS)) for edge in (low, high))
    if low == high or first != last or not inside:
        return low, high
    start = min(int((low + high) / 2), side - 1)
    return start, start + 1


def _completed(
    box: Corners | None, points: Pair | None, answers: Answers
) -> tuple[Corners | None, Pair | None]:
    if answers == "box" and box is not None and points is None:
        return box, points_of_box(box)
    if answers == "points" and points is not None and box is None:
        return box_of_points(points), points
    return box, points


def _fields(value: Any) -> dict[str, Any] | None:
    """The answer under the project's names; None when it is no single answer."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    fields = dict(value)
    for name in _BOX_NAMES:
        if name in fields:
            fields.setdefault("bbox", fields.pop(name))
    points = fields.get(_POINTS_NAME)
    if isinstance(points, list) and len(points) == 2 and isinstance(points[0], list):
        del fields[_POINTS_NAME]
        fields.setdefault("points_1", points[0])
        fields.setdefault("points_2", points[1])
    return fields


def _written(numbers: tuple[float, ...]) -> list[float]:
    """Hundredths of a pixel are enough; whole numbers are written as such."""
    return [int(number) if number == int(number) else round(number, _DIGITS) for number in numbers]
