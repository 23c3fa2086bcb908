"""What holds of rewards whatever the completion, and the authors' own figures."""

from __future__ import annotations

import json
import os
from math import isfinite
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medreasoner_trainer.rewards.score import PRESETS, score
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import PAPER, RELEASED, VARIANTS, Variant
from napari_medreasoner.core.geometry import Corners, Pair

HARD = PRESETS["hard"]
SIZE = (600, 800)

coordinate = st.floats(-200, 1000, allow_nan=False).map(lambda value: round(value, 2))
side = st.floats(1, 600).map(lambda value: round(value, 2))
point = st.tuples(coordinate, coordinate)
pair = st.tuples(point, point)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinate, coordinate, side, side)
truth = st.builds(Truth, box, pair, st.just(SIZE))
variant = st.sampled_from([PAPER, RELEASED])


def text(bbox: Corners, points: Pair) -> str:
    answer = {"bbox": bbox, "points_1": points[0], "points_2": points[1]}
    return f"<think>rim</think><answer>{json.dumps(answer)}</answer>"


def require_sound(completion: str, true: Truth) -> None:
    for preset in PRESETS.values():
        for rules in VARIANTS.values():
            parts = score(completion, true, preset, rules)
            total = parts.pop("score")
            assert all(0 <= value <= 1 for value in parts.values())
            assert isfinite(total)
            assert 0 <= total <= len(preset.counted)


@given(box, pair, truth)
def test_components_are_finite_and_from_0_to_1(bbox: Corners, points: Pair, true: Truth) -> None:
    require_sound(text(bbox, points), true)


number = st.sampled_from(
    ["0", "1", "300", "-0.0", "1e-320", "5e-324", "1e308", "NaN", "-Infinity", "true", "2147483647"]
)
numbers = st.lists(number, min_size=1, max_size=5).map(lambda items: f"[{', '.join(items)}]")
answers = st.builds('{{"bbox": {}, "points_1": {}, "points_2": {}}}'.format, *[numbers] * 3)
tags = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "{", "}", "'", "\n"])
soup = st.lists(st.one_of(tags, answers, st.text(max_size=8)), max_size=12).map("".join)


@settings(max_examples=2000)
@given(st.one_of(soup, answers.map("<think>a</think><answer>{}</answer>".format)))
@example("<answer>" + "[" * 100_000)
def test_any_text_has_a_score(completion: str) -> None:
    require_sound(completion, Truth((0, 0, 300, 400), ((60, 80), (240, 320)), SIZE))


@pytest.mark.parametrize("unit", ["<think>", "<answer>", "<answer>{", "</answer><think>", "<"])
def test_a_hundred_thousand_unclosed_tags_are_judged(unit: str) -> None:
    """Quadratic work on this much text would not end; benchmarks/rewards.py has the times."""
    for repeats in (100_000, 1_000_000):
        require_sound(unit * repeats, Truth((0, 0, 300, 400), ((60, 80), (240, 320))))


@given(box, pair, truth, variant)
def test_points_have_no_order(bbox: Corners, points: Pair, true: Truth, rules: Variant) -> None:
    expected = score(text(bbox, points), true, HARD, rules)
    swapped = true._replace(points=true.points[::-1])
    for completion, other in ((text(bbox, points[::-1]), true), (text(bbox, points), swapped)):
        assert score(completion, other, HARD, rules) == pytest.approx(expected, abs=1e-4)


@given(box, pair, truth, variant)
def test_overlaps_are_symmetric(bbox: Corners, points: Pair, true: Truth, rules: Variant) -> None:
    """Up to the penalties, which tell a prediction from a truth: r/0.7 at the least."""
    there = score(text(bbox, points), true, HARD, rules)
    back = score(text(true.box, true.points), Truth(bbox, points, SIZE), HARD, rules)
    for name, valid in (
        ("bbox_iou", "bbox"),
        ("points_dice", "points"),
        ("points_angle", "points"),
    ):
        bare = [without_penalty(parts, name, valid) for parts in (there, back)]
        if max(there[name], back[name]) < 1:
            assert bare[0] == pytest.approx(bare[1], abs=2e-4)


def without_penalty(parts: dict[str, float], name: str, of: str) -> float:
    second = "area" if of == "bbox" else "spread"
    valid = parts[f"{of}_position_valid"] + parts[f"{of}_{second}_valid"]
    return parts[name] / (0.7 + 0.15 * valid)


def whole(true: Truth) -> Truth:
    """Corners a JSON text and a mirror reproduce without rounding."""
    x1, y1, x2, y2 = map(round, true.box)
    (ax, ay), (bx, by) = true.points
    points = ((round(ax), round(ay)), (round(bx), round(by)))
    return Truth((x1, y1, x2 + 1, y2 + 1), points, true.image_size)


def moved(true: Truth, scale: int, width: int) -> Truth:
    """Mirrored in x about width/2 (where width > 0), then magnified."""

    def at(x: float, y: float) -> tuple[float, float]:
        return (width - x if width else x) * scale, y * scale

    (x1, y1), (x2, y2) = at(*true.box[:2]), at(*true.box[2:])
    first, second = (at(*one) for one in true.points)
    size = None if true.image_size is None else (SIZE[0] * scale, SIZE[1] * scale)
    return Truth((min(x1, x2), y1, max(x1, x2), y2), (first, second), size)


@given(truth.map(whole), truth.map(whole), st.integers(1, 9))
def test_the_paper_variant_knows_no_scale(answer: Truth, true: Truth, scale: int) -> None:
    expected = score(text(answer.box, answer.points), true, HARD, PAPER)
    answer, true = moved(answer, scale, 0), moved(true, scale, 0)
    found = score(text(answer.box, answer.points), true, HARD, PAPER)
    assert found == pytest.approx(expected, abs=1e-9)


@given(truth.map(whole), truth.map(whole), variant)
def test_left_and_right_are_alike(answer: Truth, true: Truth, rules: Variant) -> None:
    expected = score(text(answer.box, answer.points), true, HARD, rules)
    answer, true = moved(answer, 1, SIZE[0]), moved(true, 1, SIZE[0])
    found = score(text(answer.box, answer.points), true, HARD, rules)
    assert found == pytest.approx(expected, abs=1e-4)


@given(truth, st.floats(0, 2), st.floats(0, 2), variant)
def test_a_box_nearer_by_earns_no_less(
    true: Truth, near: float, far: float, rules: Variant
) -> None:
    """Moved off by a share of its width, without the penalties."""
    near, far = sorted((near, far))
    x1, y1, x2, y2 = true.box

    def earned(share: float) -> list[float]:
        off = share * (x2 - x1)
        parts = score(text((x1 + off, y1, x2 + off, y2), true.points), true, HARD, rules)
        return [without_penalty(parts, name, "bbox") for name in ("bbox_iou", "bbox_align")]

    assert all(a >= b - 2e-4 for a, b in zip(earned(near), earned(far), strict=True))


@given(
    st.tuples(coordinate, coordinate),
    st.tuples(st.floats(100, 600), st.floats(100, 600)),
    st.tuples(*[st.floats(0.1, 0.4)] * 2, *[st.floats(0.6, 0.9)] * 2),
)
def test_the_truth_itself_earns_everything(
    corner: tuple[float, float], sides: tuple[float, float], shares: tuple[float, ...]
) -> None:
    (x, y), (width, height) = corner, sides
    first = (x + shares[0] * width, y + shares[1] * height)
    second = (x + shares[2] * width, y + shares[3] * height)
    true = Truth((x, y, x + width, y + height), (first, second), (840, 840))
    answer = text(true.box, true.points)
    assert score(answer, true, HARD, RELEASED)["score"] == 8
    assert score(answer, true, PRESETS["soft"], PAPER)["score"] == pytest.approx(4)
    assert score(answer, true, PRESETS["base"], PAPER)["score"] == 5


DEGENERATE: Final = {
    "inverted_box": {"soft", "hard"},
    "zero_area_box": {"soft", "hard", "base"},
    "string_numbers": {"base", "base_as_released"},
    "list_answer": {"base", "base_as_released"},
}
"""Kinds for which rewards/README.md gives a departure, and where."""


def test_the_authors_figures_are_reproduced() -> None:
    path = Path(os.environ.get("MEDREASONER_SHARED", "")) / "parity" / "rewards.jsonl"
    if not os.environ.get("MEDREASONER_SHARED") or not path.is_file():
        pytest.skip("MEDREASONER_SHARED names no folder with parity/rewards.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    for case in map(json.loads, lines):
        given_truth = case["ground_truth"]
        true = Truth(given_truth["bbox_2d"], given_truth["point_2d"]).checked()
        for name in ("soft", "hard", "base", "base_as_released"):
            if name in DEGENERATE.get(case["kind"], ()):
                continue
            preset = PRESETS[name.replace("_as_", "-")]
            parts = score(case["completion"], true, preset, RELEASED)
            assert parts == pytest.approx(case[name], abs=1e-9), case["completion"]
    assert len(lines) == 600
