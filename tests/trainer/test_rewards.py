"""Rewards against values worked by hand.

The true box is 300 wide and 400 high, so its diagonal is 500 and its area 120,000. The true
points are 300 apart, and their circle has its centre at (150, 200) and a radius of 150.
Smoothing as printed: rise(v) = ln(3v+1)/ln 4, fall(d) = 1/(1+e^(3(d-1))). Rescaled:
0.1 + 0.9 rise(v), and with fall(0) = 0.952574 and fall(2) = 0.047426
0.1 + 0.9 (fall(d) - 0.047426)/0.905148. Penalty: r (0.7 + 0.3 (v1+v2)/2).
"""

from __future__ import annotations

import json
from math import inf, nan
from typing import Any

import pytest

from medreasoner_trainer.rewards.functions import reward_functions
from medreasoner_trainer.rewards.score import PRESETS, score
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import PAPER, RELEASED, Thresholds
from napari_medreasoner.core.errors import InputError
from napari_medreasoner.core.geometry import Corners, Pair

BOX = (0.0, 0.0, 300.0, 400.0)
POINTS = ((60.0, 80.0), (240.0, 320.0))
TRUTH = Truth(BOX, POINTS)
HARD = PRESETS["hard"]


def body(box: Any = BOX, points: Any = POINTS) -> str:
    return json.dumps({"bbox": box, "points_1": points[0], "points_2": points[1]})


def text(answer: str, think: str = "<think>dark rim</think>") -> str:
    return f"{think}<answer>{answer}</answer>"


# Format: think level and answer level in the released variant, then in the paper variant.
GOOD = body()
FORMATS = [
    (text(GOOD), (1, 1), (1, 1)),
    (text(GOOD, "<think>a</think>\n"), (1, 1), (1, 1)),
    (text(GOOD, "<think> \n</think>"), (0.2, 1), (0.2, 1)),
    (text(GOOD, ""), (0, 1), (0, 1)),
    (text(GOOD, "<think>never closed"), (0, 1), (0, 1)),
    ("Sure. " + text(GOOD), (1, 1), (0.2, 1)),
    (text(GOOD) + text(GOOD, ""), (1, 1), (0.2, 1)),
    (text(GOOD, "") + "<think>late</think>", (1, 1), (0.2, 1)),
    (text(GOOD.replace('"', "'")), (1, 1), (1, 0.2)),
    (text(GOOD[:-1] + ', "note": "it\'s"}'), (1, 1), (1, 1)),
    (text(f"```json\n{GOOD}\n```"), (1, 0.2), (1, 0.2)),
    (text(GOOD[:-5]), (1, 0.2), (1, 0.2)),
    (text(f"[{GOOD}]"), (1, 0.2), (1, 0.2)),
    (text('{"bbox": [0, 0, 300, 400]}'), (1, 0.4), (1, 0.4)),
    (text('{"refusal": "There is no such structure."}'), (1, 0.4), (1, 0.4)),
    (text(body(box=[1, 2, 3], points=([1], [2, 3]))), (1, 0.4), (1, 0.4)),
    (text(body(box=[1, 2, 3])), (1, 0.6), (1, 0.6)),
    (text(body(points=([1, 2], ["3", "4"]))), (1, 0.6), (1, 0.6)),
    (text(body(box=[0, 0, nan, 400])), (1, 0.6), (1, 0.6)),
    (text(body(box=[0, 0, True, 400])), (1, 0.6), (1, 0.6)),
    (text(body(box=[0, 0, 1e30, 400])), (1, 0.6), (1, 0.6)),
    ("<think>dark rim</think><answer>" + GOOD, (1, 0), (0.2, 0)),
    (text(""), (1, 0), (1, 0)),
    ("I cannot help with that.", (0, 0), (0, 0)),
    ("", (0, 0), (0, 0)),
]


@pytest.mark.parametrize(("completion", "released", "paper"), FORMATS)
def test_format_levels(
    completion: str, released: tuple[float, float], paper: tuple[float, float]
) -> None:
    for variant, expected in ((RELEASED, released), (PAPER, paper)):
        parts = score(completion, TRUTH, HARD, variant)
        assert (parts["format_think"], parts["format_seg"]) == expected


# Box in pixels, and bbox_iou, bbox_align, bbox_scale in the released variant.
BOXES = [
    # Perfect.
    (BOX, (1.0, 1.0, 1.0)),
    # Half a width to the right: IoU 60,000/180,000 = 1/3, rise = ln 2/ln 4 = 1/2, so 0.55.
    # Distance (150+150)/4/500 = 0.15: fall = 0.927573, so 0.975141. Same size: 1.
    # One true point is outside: x (0.7 + 0.3·0.75) = 0.925.
    ((150, 0, 450, 400), (0.508750, 0.902006, 0.925)),
    # A quarter of the area: IoU 1/4, rise = ln 1.75/ln 4 = 0.403678, so 0.463310.
    # Distance (150+200)/4/500 = 0.175: fall = 0.922359, so 0.969957. Δ ln A = ln 4 > 1, cut to 1:
    # (0.182426 - 0.010987)/(0.817574 - 0.010987) = 0.212549, so 0.291294.
    # One true point outside, area too small: x 0.85.
    ((0, 0, 150, 200), (0.393813, 0.824463, 0.247600)),
    # Elsewhere: no overlap, so 0.1; distance (1000+1000)/500 = 4, cut to 2, so 0.1; same size.
    # Both true points outside, v1 = 0.25: x (0.7 + 0.3·0.625) = 0.8875.
    ((1000, 1000, 1300, 1400), (0.088750, 0.088750, 0.8875)),
    # Corners out of order, no width, no height: no box.
    ((300, 400, 0, 0), (0, 0, 0)),
    ((300, 0, 0, 400), (0, 0, 0)),
    ((0, 0, 0, 400), (0, 0, 0)),
    ((0, 400, 300, 400), (0, 0, 0)),
]


@pytest.mark.parametrize(("box", "expected"), BOXES)
def test_boxes_as_released(box: Corners, expected: tuple[float, ...]) -> None:
    parts = score(text(body(box=box)), TRUTH, HARD, RELEASED)
    found = [parts[name] for name in ("bbox_iou", "bbox_align", "bbox_scale")]
    assert found == pytest.approx(expected, abs=6e-5)
    assert [parts[name] for name in ("points_dice", "points_align", "points_angle")] == [1, 1, 1]


# Points in pixels, and points_dice, points_align, points_angle in the released variant.
PAIRS = [
    # Perfect, in either order: 2I/U = 2, rise over 1, cut to 1.
    (POINTS, (1.0, 1.0, 1.0)),
    (POINTS[::-1], (1.0, 1.0, 1.0)),
    # Half the radius, same centre: 2I/U = 1/2, rise = ln 2.5/ln 4 = 0.660964, so 0.694868.
    # (45+60+45+60)/4/500 = 0.105: fall = 0.936136, so 0.983656.
    (((105, 140), (195, 260)), (0.694868, 0.983656, 1.0)),
    # Turned by a right angle about the centre (150, 200): the same circle. Nearer pairing:
    # (30, 290) with (60, 80) and (270, 110) with (240, 320): (30+210+30+210)/4/500 = 0.24:
    # fall = 0.907205, so 0.954890. No direction in common: 0.1.
    (((30, 290), (270, 110)), (1.0, 0.954890, 0.1)),
    # Level, 200 apart about the centre: 2I/U = 2·100²/150² = 8/9, rise = ln(11/3)/ln 4 = 0.937236,
    # so 0.943512. (10+120+10+120)/4/500 = 0.13: fall = 0.931494, so 0.979038. cos = 180/300 = 0.6,
    # rise = ln 2.8/ln 4 = 0.742713, so 0.768442.
    (((50, 200), (250, 200)), (0.943512, 0.979038, 0.768442)),
    # One and the same point: no circle, so 0.1; (90+120+90+120)/4/500 = 0.21: fall = 0.914510, so
    # 0.962153; no direction. Collapsed: x 0.925.
    (((150, 200), (150, 200)), (0.0925, 0.889992, 0.0925)),
    # Far away, parallel: both outside: x 0.8875.
    (((2060, 2080), (2240, 2320)), (0.088750, 0.088750, 0.8875)),
]


@pytest.mark.parametrize(("points", "expected"), PAIRS)
def test_points_as_released(points: Pair, expected: tuple[float, ...]) -> None:
    parts = score(text(body(points=points)), TRUTH, HARD, RELEASED)
    found = [parts[name] for name in ("points_dice", "points_align", "points_angle")]
    assert found == pytest.approx(expected, abs=6e-5)
    assert [parts[name] for name in ("bbox_iou", "bbox_align", "bbox_scale")] == [1, 1, 1]


# In an image of 600 x 800 the true box is (0, 0, 0.5, 0.5) with a diagonal of 0.707107 and the
# true points are (0.1, 0.1) and (0.4, 0.4).
PAPER_CASES = [
    # Perfect: fall(0) = 1/(1+e^-3) = 0.952574.
    (BOX, POINTS, (1, 0.952574, 0.952574, 1, 0.952574, 1)),
    # Box: IoU 1/3, rise 1/2. Distance (0.25+0.25)/4/0.707107 = 0.176777: fall = 0.921988. One true
    # point outside: x 0.925. Points 60 px to the right: Eq. 6: (0.1+0.1)/2: fall(0.1) = 0.937027.
    # Circles of radius 0.212132 whose centres are 0.1 apart: 2 arccos(0.05/0.212132) = 2.665710,
    # sine 0.458123, I/A = (2.665710 - 0.458123)/π = 0.702697, which is also the Dice;
    # ln 3.108091/ln 4 = 0.818014. (300, 320) is on the box's edge, so inside.
    (
        (150, 0, 450, 400),
        ((120, 80), (300, 320)),
        (0.4625, 0.852839, 0.881131, 0.818014, 0.937027, 1),
    ),
    # Box: twice the width: IoU 1/2, rise = ln 2.5/ln 4 = 0.660964. Distance 0.5/4/0.707107 =
    # 0.176777. hypot(ln 2, ln 2) = 0.980258: fall = 0.514803. Twice the area: x 0.925.
    # Points: half as far apart, same centre: 2·0.25/1.25 = 0.4, rise = ln 2.2/ln 4 = 0.568751.
    # (0.075·4)/2 = 0.15: fall = 0.927573. Just half the true distance: x 0.925.
    (
        (0, 0, 600, 400),
        ((105, 140), (195, 260)),
        (0.611392, 0.852839, 0.476193, 0.526095, 0.858005, 0.925),
    ),
    # Elsewhere: nothing shared: 0. Distance 4/4/0.707107 = 1.414214, fall = 0.223977. Points:
    # (1+1+1+1)/2 = 2, fall(2) = 0.047426. Validity (0.5+1)/2 for either: x 0.925.
    (
        (600, 800, 900, 1200),
        ((660, 880), (840, 1120)),
        (0, 0.207178, 0.881131, 0, 0.043869, 0.925),
    ),
]


@pytest.mark.parametrize(("box", "points", "expected"), PAPER_CASES)
def test_the_paper_variant(box: Corners, points: Pair, expected: tuple[float, ...]) -> None:
    truth = Truth(BOX, POINTS, (600, 800))
    parts = score(text(body(box, points)), truth, HARD, PAPER)
    names = ["bbox_iou", "bbox_align", "bbox_scale", "points_dice", "points_align", "points_angle"]
    assert [parts[name] for name in names] == pytest.approx(expected, abs=2e-6)
    assert parts["score"] == pytest.approx(2 + sum(expected), abs=1e-5)


# thinking, segment, iou, bbox_l1, points_l1 as released.
BASES = [
    (text(body()), (1, 1, 1, 1, 1)),
    (text(body(points=POINTS[::-1])), (1, 1, 1, 1, 1)),
    ("Sure. " + text(body()), (0, 1, 1, 1, 1)),
    (text(body(), ""), (0, 1, 1, 1, 1)),
    (text(body().replace('"', "'")), (1, 0, 0, 0, 0)),
    ("", (0, 0, 0, 0, 0)),
    # A mean difference of (9·4)/4 = 9 px counts, one of 10 px does not.
    (text(body(box=[9, 9, 309, 409])), (1, 1, 1, 1, 1)),
    (text(body(box=[10, 10, 310, 410])), (1, 1, 1, 0, 1)),
    # 301·401 inclusive pixels; a width of 151 is just over half of them, one of 150 just under.
    (text(body(box=[0, 0, 150, 400])), (1, 1, 1, 0, 0)),
    (text(body(box=[0, 0, 149, 400])), (1, 1, 0, 0, 0)),
    # A missing half leaves the other.
    (text('{"bbox": [0, 0, 300, 400], "points_1": [1, 2]}'), (1, 0, 1, 1, 0)),
    # A mean distance of (190+0)/2 px counts, one of (200+0)/2 does not.
    (text(body(points=([250, 80], [240, 320]))), (1, 1, 1, 1, 1)),
    (text(body(points=([260, 80], [240, 320]))), (1, 1, 1, 1, 0)),
    # One point outside the predicted box.
    (text(body(points=([60, 80], [240, 401]))), (1, 1, 1, 1, 0)),
    # Cut to whole pixels, both are on the edge at 400.
    (text(body(box=[0, 0, 300, 400.2], points=([60, 80], [240, 400.9]))), (1, 1, 1, 1, 1)),
]


@pytest.mark.parametrize(("completion", "expected"), BASES)
def test_base(completion: str, expected: tuple[int, ...]) -> None:
    parts = score(completion, TRUTH, PRESETS["base"], RELEASED)
    assert tuple(parts.values()) == (*expected, sum(expected))
    broken = score(completion, TRUTH, PRESETS["base-released"], RELEASED)
    thinking, segment, _, _, points = expected
    assert tuple(broken.values()) == (thinking, segment, 0, 0, points, thinking + segment + points)


def test_thresholds_grow_with_the_image() -> None:
    assert Thresholds().scaled(1680) == Thresholds(1680, 20, 20, 200)
    pair = ((150.0, 200.0), (165.0, 200.0))
    completion = text(body(points=pair))
    small, large = (Truth(BOX, POINTS, size) for size in ((840, 400), (840, 1680)))
    assert score(completion, small, HARD, RELEASED)["points_spread_valid"] == 1
    assert score(completion, large, HARD, RELEASED)["points_spread_valid"] == 0.5


def test_small_targets_are_not_taken_for_collapsed_in_the_paper_variant() -> None:
    truth = Truth((10, 10, 16, 18), ((12, 12), (14, 16)))
    perfect = text(body(truth.box, truth.points))
    assert score(perfect, truth, HARD, PAPER)["points_spread_valid"] == 1
    assert score(perfect, truth, HARD, RELEASED)["points_spread_valid"] == 0.5


def test_soft_leaves_out_what_does_not_count() -> None:
    completion = text(body(box=[30, 40, 310, 390], points=([70, 70], [200, 300])))
    soft, hard = (score(completion, TRUTH, PRESETS[name], RELEASED) for name in ("soft", "hard"))
    assert list(soft) == list(hard)
    assert {name for name in hard if name != "score" and soft[name] != hard[name]} == {
        "bbox_align",
        "bbox_scale",
        "points_align",
        "points_angle",
    }


def test_reward_functions_share_what_they_judge() -> None:
    completions = [completion for completion, *_ in FORMATS]
    truths = [TRUTH] * len(completions)
    functions = reward_functions(HARD, RELEASED)
    assert [function.__name__ for function in functions] == list(HARD.counted)
    table = [function(completions, truths) for function in functions]
    expected = [score(completion, TRUTH, HARD, RELEASED)["score"] for completion in completions]
    assert [sum(column) for column in zip(*table, strict=True)] == pytest.approx(expected)


@pytest.mark.parametrize(
    "truth",
    [
        Truth((0, 0, 0, 10), POINTS),
        Truth((0, 10, 5, 0), POINTS),
        Truth((0, 0, inf, 10), POINTS),
        Truth(BOX, ((nan, 0), (1, 1))),
        Truth(BOX, POINTS, (0, 400)),
    ],
)
def test_a_truth_that_nothing_can_meet_is_refused(truth: Truth) -> None:
    with pytest.raises(InputError):
        truth.checked()
