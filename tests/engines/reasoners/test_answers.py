"""A model's own answer in the project's names and pixels; what is missing is added openly."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Box
from napari_medreasoner.core.grounding import AnswerFault, parse_answer, parse_halves
from napari_medreasoner.engines.reasoners.answers import box_of_points, points_of_box, rewritten
from napari_medreasoner.engines.reasoners.coordinates import space_of
from napari_medreasoner.engines.reasoners.rewriting import AnswerRewriter

HALF = space_of("resized pixels", (100, 100), (200, 200))
"""Half of what the model writes."""

WHOLE = '{"bbox": [20, 40, 60, 80], "points_1": [40, 60], "points_2": [50, 70]}'


def passed(text: str, answers: Any = "box and points", step: int = 1) -> str:
    """The text after a rewriter that is given a few characters at a time."""
    rewriter = AnswerRewriter(HALF, answers)
    shown = [rewriter.feed(text[start : start + step]) for start in range(0, len(text), step)]
    return "".join(shown) + ("" if rewriter.finished else rewriter.finish())


@pytest.mark.parametrize(
    "own",
    [
        WHOLE,
        WHOLE.replace('"', "'"),
        f"```json\n{WHOLE}\n```",
        f"[{WHOLE}]",
        '{"bbox_2d": [20, 40, 60, 80], "point_2d": [[40, 60], [50, 70]], "label": "x"}',
        '[{"box_2d": [20, 40, 60, 80], "points_1": [40, 60], "points_2": [50, 70]}]',
    ],
)
@pytest.mark.parametrize("closing", ["</answer>", ""])
def test_names_and_shapes_that_models_use(own: str, closing: str) -> None:
    text = passed(f"<think>a</think><answer>{own}{closing}")
    found = parse_answer(text)
    assert found.bbox == (10, 20, 30, 40)
    assert found.points == ((19.75, 29.75), (24.75, 34.75))
    assert text.endswith(closing)


@pytest.mark.parametrize(
    ("own", "fault"),
    [
        ("no idea", AnswerFault.NOT_JSON),
        ("", AnswerFault.NO_ANSWER),
        ("[" * 5000, AnswerFault.NOT_JSON),
        ("3", AnswerFault.NOT_AN_OBJECT),
        (f"[{WHOLE}, {WHOLE}]", AnswerFault.NOT_AN_OBJECT),
        ('{"refusal": "cannot see it"}', AnswerFault.REFUSED),
        ('{"bbox": [1, 2, 3], "points_1": [1, 2], "points_2": [3, 4]}', AnswerFault.WRONG_LENGTH),
        ('{"bbox": [1, 2, 3, NaN]}', AnswerFault.NOT_A_NUMBER),
        ('{"points_1": [1, 2], "points_2": [3, 4]}', AnswerFault.MISSING_KEY),
        ('{"bbox_2d": 7}', AnswerFault.WRONG_LENGTH),
    ],
)
def test_what_is_wrong_stays_wrong_in_the_same_way(own: str, fault: AnswerFault) -> None:
    with pytest.raises(AnswerError) as raised:
        parse_answer(passed(f"<answer>{own}</answer>"))
    assert raised.value.fault == fault


def test_a_good_half_is_kept_beside_a_wrong_one() -> None:
    text = passed('<answer>{"bbox": [20, 40, 60, 80], "points_1": "here"}</answer>')
    halves = parse_halves(text, 100, 100)
    assert halves.box == Box.from_corners(10, 20, 30, 40)
    assert halves.points is None


def test_a_box_alone_gets_points_and_the_trace_says_so() -> None:
    text = passed('<think>Why.</think>\n<answer>{"bbox": [20, 40, 60, 80]}</answer>', "box")
    found = parse_answer(text)
    assert found.points == ((19.5, 29.5), (24.5, 29.5))
    assert found.trace.startswith("Why.")
    assert "Added by napari-medreasoner, not by the model" in found.trace
    assert "centre of the box" in found.trace


def test_points_alone_get_a_box_and_the_trace_says_so() -> None:
    own = '{"points_1": [39.5, 59.5], "points_2": [79.5, 59.5]}'
    found = parse_answer(passed(f"<think>Why.</think><answer>{own}</answer>", "points"))
    assert found.bbox == (20, 20, 40, 40)
    assert "the box is the one around the circle" in found.trace


@pytest.mark.parametrize(("answers", "own"), [("box", WHOLE), ("points", WHOLE)])
def test_nothing_is_added_to_a_whole_answer(answers: str, own: str) -> None:
    text = f"<think>Why.</think>\n<answer>{own}</answer>"
    assert passed(text, answers) == passed(text, "box and points")


@pytest.mark.parametrize(
    ("answers", "own"),
    [
        ("box and points", '{"bbox": [20, 40, 60, 80]}'),
        ("points", '{"bbox": [20, 40, 60, 80]}'),
        ("box", '{"points_1": [40, 60], "points_2": [50, 70]}'),
    ],
)
def test_a_half_that_the_model_should_have_given_is_not_made_up(answers: str, own: str) -> None:
    with pytest.raises(AnswerError):
        parse_answer(passed(f"<think>Why.</think><answer>{own}</answer>", answers))


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "<think></think>",
        "<think>a < b</think> and",
        "<think>never closed",
        "a</think>",
        "</think><think>b</think>",
    ],
)
def test_the_note_lands_in_the_trace(trace: str) -> None:
    found = parse_answer(passed(trace + '<answer>{"bbox": [2, 4, 6, 8]}</answer>', "box"))
    assert "not by the model" in found.trace
    assert found.bbox == (1, 2, 3, 4)


def test_the_trace_is_passed_on_at_once_and_untouched() -> None:
    trace = "<think>At [20, 40], 3 < 4, </thin king>, <answers>, é漢😀.</think>\n"
    rewriter = AnswerRewriter(HALF, "box and points")
    shown = ""
    for character in trace:
        shown += rewriter.feed(character)
        held = trace[: len(shown) + len("<answer>")]
        assert held.startswith(shown)
    assert shown == trace
    assert rewriter.feed("<answer>{") == ""


texts = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", WHOLE, "<", "a", "</", "{"])
).map("".join)


@given(texts, st.integers(1, 30), st.sampled_from(["box and points", "box", "points"]))
def test_how_the_text_is_cut_into_pieces_changes_nothing(
    text: str, step: int, answers: str
) -> None:
    assert passed(text, answers, step) == passed(text, answers, len(text) + 1)


@given(texts)
def test_text_without_an_answer_is_untouched(text: str) -> None:
    text = text.replace("<answer>", "")
    assert passed(text) == passed(text, "box") == text


corners = st.tuples(*[st.integers(0, 500)] * 2, *[st.integers(501, 1000)] * 2)


@given(corners)
def test_added_points_lie_inside_the_box_and_apart(corners: tuple[int, int, int, int]) -> None:
    x1, y1, x2, y2 = corners
    first, second = points_of_box(corners)
    for x, y in (first, second):
        assert x1 - 0.5 <= x <= x2 - 0.5
        assert y1 - 0.5 <= y <= y2 - 0.5
    assert first != second


@given(corners)
def test_an_added_box_holds_both_points(corners: tuple[int, int, int, int]) -> None:
    xa, ya, xb, yb = corners
    x1, y1, x2, y2 = box_of_points(((xa, ya), (xb, yb)))
    assert x2 - x1 == pytest.approx(y2 - y1)
    for x, y in ((xa, ya), (xb, yb)):
        assert x1 - 1e-9 <= x + 0.5 <= x2 + 1e-9
        assert y1 - 1e-9 <= y + 0.5 <= y2 + 1e-9


def test_a_block_keeps_what_else_the_model_wrote_in_it() -> None:
    block, note = rewritten('<answer>{"bbox": [2, 4, 6, 8], "label": "lung"}</answer>', HALF, "box")
    assert json.loads(block[len("<answer>") : -len("</answer>")])["label"] == "lung"
    assert note


corners = st.tuples(*[st.integers(0, 223)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]) + 1, max(c[1], c[3]) + 1)
)


@given(corners, st.integers(1, 40), st.integers(1, 40))
def test_a_box_on_a_larger_picture_encloses_a_pixel_of_a_small_one(
    written: tuple[int, int, int, int], width: int, height: int
) -> None:
    """The model was shown 224 x 224 pixels of a picture that has only a few."""
    space = space_of("resized pixels", (width, height), (224, 224))
    text = f'<answer>{{"bbox": {list(written)}, "points_1": [1, 1], "points_2": [9, 9]}}</answer>'
    block, _ = rewritten(text, space, "box and points")
    box = parse_answer(block).on_image(width, height).box
    assert box.area >= 1
    for found, said, unit in zip(box.corners, written, (width, height) * 2, strict=True):
        assert abs(found - said * unit / 224) <= 1
