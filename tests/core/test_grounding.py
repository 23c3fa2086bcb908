import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.grounding import (
    AnswerFault,
    format_answer,
    format_refusal,
    parse_answer,
    parse_halves,
)

GOOD = '{"bbox": [10, 20, 110, 220], "points_1": [40, 60], "points_2": [80, 200]}'


def fault(text: str, *, strict: bool = False) -> str:
    with pytest.raises(AnswerError) as caught:
        parse_answer(text, strict=strict)
    assert str(caught.value)
    return caught.value.fault


def test_the_demanded_format_is_read_strictly() -> None:
    answer = parse_answer(f"<think>dark rim</think>\n<answer>{GOOD}</answer>", strict=True)
    assert answer.trace == "dark rim"
    assert answer.bbox == (10, 20, 110, 220)
    assert answer.points == ((40, 60), (80, 200))


@pytest.mark.parametrize(
    "text",
    [
        f"<think>a</think><answer>{GOOD.replace(chr(34), chr(39))}</answer>",
        f"<answer>```json\n{GOOD}\n```</answer>",
        f"Sure! <think>a</think> here: <answer>{GOOD} hope it helps</answer> bye",
        f"<answer>{GOOD}",
        f"<answer>{GOOD}</answer><answer>nothing</answer>",
    ],
)
def test_a_user_is_forgiven_what_training_is_not(text: str) -> None:
    assert parse_answer(text).bbox == (10, 20, 110, 220)
    assert fault(text, strict=True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", AnswerFault.NO_ANSWER),
        ("not json", AnswerFault.NOT_JSON),
        ("[1, 2]", AnswerFault.NOT_AN_OBJECT),
        ('{"bbox": [1, 2, 3, 4], "points_1": [1, 2]}', AnswerFault.MISSING_KEY),
        (GOOD.replace("110, ", ""), AnswerFault.WRONG_LENGTH),
        (GOOD.replace("110", "NaN"), AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("110", "-Infinity"), AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("110", "1e999"), AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("110", "true"), AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("110", '"110"'), AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("110", "null"), AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("110", "9" * 400), AnswerFault.OUTSIDE),
        ('{"refusal": "No such structure."}', AnswerFault.REFUSED),
    ],
)
def test_a_refused_answer_says_why(body: str, expected: AnswerFault) -> None:
    assert fault(f"<think>a</think><answer>{body}</answer>") == expected


def test_a_refusal_carries_the_models_sentence() -> None:
    with pytest.raises(AnswerError, match="It's not about the image"):
        parse_answer(format_refusal("looked", "It's not about the image."))


@pytest.mark.parametrize(
    "text",
    [
        f"<answer>{GOOD}</answer><think>late</think>",
        f"<think>a</think><answer>{GOOD}</answer> and more",
        f"<think>a</think><think>b</think><answer>{GOOD}</answer>",
        f"<think>a</think><answer>{GOOD.replace('110', '5')}</answer>",
        f"<think>a</think><answer>{GOOD.replace('[80, 200]', '[40, 60]')}</answer>",
    ],
)
def test_training_refuses_anything_but_the_format(text: str) -> None:
    assert fault(text, strict=True) in {AnswerFault.NOT_THE_FORMAT, AnswerFault.EMPTY_BOX}


def test_on_image_orders_rounds_and_clips() -> None:
    text = '<answer>{"bbox": [110.4, 220, 9.6, -5], "points_1": [-3, 60], "points_2": [80, 999]}'
    grounding = parse_answer(text).on_image(100, 200)
    assert grounding.box == Box.from_corners(10, 0, 100, 200)
    assert grounding.points == (Point(x=0, y=60), Point(x=80, y=199))


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([10, 10, 10.2, 50], AnswerFault.EMPTY_BOX),
        ([500, 10, 600, 50], AnswerFault.OUTSIDE),
        ([-50, -60, -1, -2], AnswerFault.OUTSIDE),
    ],
)
def test_a_box_that_shows_nothing_is_refused(bbox: list[float], expected: AnswerFault) -> None:
    body = json.dumps({"bbox": bbox, "points_1": [1, 2], "points_2": [3, 4]})
    with pytest.raises(AnswerError) as caught:
        parse_answer(f"<answer>{body}</answer>").on_image(100, 100)
    assert caught.value.fault == expected


@given(
    trace=st.text(st.characters(exclude_characters="<")),
    corner=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    size=st.tuples(st.integers(2, 50), st.integers(2, 50)),
)
def test_what_is_written_is_read_back(
    trace: str, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    box = Box.from_corners(*corner, corner[0] + size[0], corner[1] + size[1])
    points = (Point(x=box.x1, y=box.y1), Point(x=box.x2 - 1, y=box.y2 - 1))
    grounding = parse_answer(format_answer(trace, box, points), strict=True).on_image(100, 100)
    assert (grounding.box, grounding.points, grounding.trace) == (box, points, trace.strip())


fragments = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "{", "}", "[", '"bbox":', "'", "1e400", "NaN"]
)


@given(st.lists(st.one_of(fragments, st.text(max_size=8)), max_size=40).map("".join), st.booleans())
@example("<answer>" + "[" * 100_000, False)
@example("<answer>" + '{"a":' * 50_000, False)
@example("<answer>{" + "9" * 10_000 + "}", True)
def test_any_text_is_an_answer_or_an_answer_error(text: str, strict: bool) -> None:
    try:
        answer = parse_answer(text, strict=strict)
    except AnswerError as error:
        assert error.fault in set(AnswerFault)  # noqa: PT017 - either outcome is right
    else:
        assert len(answer.bbox) == 4


@pytest.mark.parametrize("unit", ["<think>", "<answer>", "<answer>{", "{'", "</answer><think>"])
@pytest.mark.parametrize("strict", [False, True])
def test_megabytes_of_unclosed_tags_are_read(unit: str, strict: bool) -> None:
    """Quadratic work on this much text would not end; benchmarks/parsing.py has the ratio."""
    with pytest.raises(AnswerError):
        parse_answer(unit * 500_000, strict=strict)


@pytest.mark.parametrize(
    ("body", "box", "points", "expected"),
    [
        (GOOD, (10, 20, 110, 220), ((40, 60), (80, 200)), None),
        ('{"bbox": [10, 20, 110, 220]}', (10, 20, 110, 220), None, AnswerFault.MISSING_KEY),
        (GOOD.replace("[40, 60]", "[40]"), (10, 20, 110, 220), None, AnswerFault.WRONG_LENGTH),
        (GOOD.replace("110", "10"), None, ((40, 60), (80, 200)), AnswerFault.EMPTY_BOX),
        (GOOD.replace("110", "NaN"), None, ((40, 60), (80, 200)), AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("60]", "true]"), (10, 20, 110, 220), None, AnswerFault.NOT_A_NUMBER),
        ('{"refusal": "no such thing"}', None, None, AnswerFault.REFUSED),
        ("", None, None, AnswerFault.NO_ANSWER),
    ],
)
def test_each_half_of_an_answer_is_read_by_itself(
    body: str,
    box: tuple[int, ...] | None,
    points: tuple[tuple[int, int], ...] | None,
    expected: AnswerFault | None,
) -> None:
    halves = parse_halves(f"<answer>{body}</answer>", 300, 300)
    assert (halves.box.corners if halves.box else None) == box
    found = tuple((point.x, point.y) for point in halves.points) if halves.points else None
    assert found == points
    assert (halves.error.fault if halves.error else None) == expected
