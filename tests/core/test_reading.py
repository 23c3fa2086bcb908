"""The one reading that users' answers and training rewards stand on."""

from __future__ import annotations

import pytest

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.reading import AnswerFault, Forgiven, Layout, read_answer

GOOD = '{"bbox": [10, 20, 110.5, 220], "points_1": [40, 60], "points_2": [80, 200]}'
THINK = "<think> dark rim\n</think>"


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (f"{THINK}<answer>{GOOD}</answer>", Layout.EXACT),
        (f"\n{THINK}\n<answer>{GOOD}</answer>\n", Layout.EXACT),
        (f"<think>a < b</think><answer>{GOOD}</answer>", Layout.EXACT),
        (f"{THINK}<answer>{GOOD}</answer><answer>{GOOD}</answer>", Layout.FRAMED),
        (f"{THINK}{THINK}<answer>{GOOD}</answer>", Layout.FRAMED),
        (f"{THINK} so <answer>{GOOD}</answer>", Layout.SCATTERED),
        (f"{THINK}<answer>{GOOD}</answer>.", Layout.SCATTERED),
        (f"<answer>{GOOD}</answer>{THINK}", Layout.SCATTERED),
        (f"<answer>{GOOD}</answer>", Layout.SCATTERED),
        ("", Layout.SCATTERED),
    ],
)
def test_layout(text: str, layout: Layout) -> None:
    assert read_answer(text).layout is layout


@pytest.mark.parametrize(
    ("answer", "forgiven"),
    [
        (f"<answer>{GOOD}</answer>", Forgiven.NOTHING),
        (f"<answer>{GOOD.replace(chr(34), chr(39))}</answer>", Forgiven.QUOTES),
        (f"<answer>```json\n{GOOD}\n```</answer>", Forgiven.CLUTTER),
        (f"<answer>{GOOD} there</answer>", Forgiven.CLUTTER),
        (f"<answer>{GOOD}", Forgiven.NO_END),
    ],
)
def test_what_is_forgiven_is_told(answer: str, forgiven: Forgiven) -> None:
    reading = read_answer(THINK + answer)
    assert reading.forgiven is forgiven
    assert reading.bbox == (10, 20, 110.5, 220)
    assert reading.points == ((40, 60), (80, 200))
    assert reading.trace == "dark rim"


@pytest.mark.parametrize(
    ("body", "bbox", "points"),
    [
        ("", AnswerFault.NO_ANSWER, AnswerFault.NO_ANSWER),
        ("[]", AnswerFault.NOT_AN_OBJECT, AnswerFault.NOT_AN_OBJECT),
        ('{"bbox": [1, 2, 3]}', AnswerFault.WRONG_LENGTH, AnswerFault.MISSING_KEY),
        (GOOD.replace("60", "Infinity"), None, AnswerFault.NOT_A_NUMBER),
        (GOOD.replace("10,", "true,"), AnswerFault.NOT_A_NUMBER, None),
        (GOOD.replace("10,", "-3e9,"), AnswerFault.OUTSIDE, None),
    ],
)
def test_each_half_says_what_is_wrong_with_it(
    body: str, bbox: AnswerFault | None, points: AnswerFault | None
) -> None:
    reading = read_answer(f"<answer>{body}</answer>")
    halves = (reading.bbox, reading.points)
    found = [half.fault if isinstance(half, AnswerError) else None for half in halves]
    assert found == [bbox, points]
