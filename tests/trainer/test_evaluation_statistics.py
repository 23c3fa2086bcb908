"""Means, intervals and comparisons against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medreasoner_trainer.evaluation.case import REASONER_FAILED, SEGMENTER_FAILED, Case
from medreasoner_trainer.evaluation.statistics import MEASURES, Group, compare, describe
from napari_medreasoner.core.errors import InputError


def case(name: str, iou: float, group: str | None = None, **fields: object) -> Case:
    known = {"modality": "CT", "supercategory": "lung", "category": "left lung", "question": "?"}
    found = {"parsed": True, "bbox": (0, 0, 1, 1), "points": ((0, 0), (1, 1)), "seconds": 1.0}
    given = known | found | {"dice_box": iou / 2} | fields
    return Case.model_validate({"id": name, "group": group or name, "iou": iou} | given)


def some(count: int, seed: int = 0) -> list[Case]:
    values = np.random.default_rng(seed).beta(2, 3, count)
    return [case(str(number), value) for number, value in enumerate(values)]


def interval(group: Group, measure: str = "iou") -> tuple[float, float]:
    found = group.measures[measure].interval
    assert found is not None
    return found


def test_intervals_are_those_of_the_percentile_bootstrap() -> None:
    cases = some(80)
    oracle = stats.bootstrap(
        ([case.iou for case in cases],), np.mean, method="percentile", rng=3
    ).confidence_interval
    assert interval(describe(cases, "both", 0)) == pytest.approx(oracle, abs=0.008)
    assert describe(cases, "both", 0).measures["iou"].mean == pytest.approx(
        np.mean([case.iou for case in cases])
    )


def test_a_seed_gives_the_same_interval_and_another_another() -> None:
    cases = some(30)
    assert interval(describe(cases, "both", 5)) == interval(describe(cases, "both", 5))
    assert interval(describe(cases, "both", 5)) != interval(describe(cases, "both", 6))


def test_images_of_one_patient_count_as_one() -> None:
    alone = some(25)
    copies = [
        case(f"{known.id}-{copy}", known.iou, group=known.group)
        for known in alone
        for copy in range(6)
    ]
    assert interval(describe(copies, "both", 0)) == pytest.approx(
        interval(describe(alone, "both", 0))
    )
    assert describe(copies, "both", 0).clusters == 25
    one = describe([case(str(number), 0.5, group="same") for number in range(4)], "both", 0)
    assert one.measures["iou"].interval is None


def test_the_prompt_mode_names_the_dice() -> None:
    group = describe(some(10), "box", 0)
    assert group.measures["dice"] == group.measures["dice_box"] != group.measures["dice_both"]


def test_hits_and_failures_are_counted_apart() -> None:
    nothing = {"parsed": False, "bbox": None, "points": None}
    cases = [
        case("hit", 0.5),
        case("miss", 0.49),
        case("half", 0.9, points=None, fault="missing_key"),
        case("asm", 0.9, fault=SEGMENTER_FAILED),
        case("refusal", 0, refused=True, fault="refused", **nothing),
        case("garbage", 0, fault="not_json", **nothing),
        case("crash", 0, fault=REASONER_FAILED, **nothing),
    ]
    group = describe(cases, "both", 0)
    assert group.measures["hit"].mean == pytest.approx(3 / 7)
    counted = (group.n, group.refused, group.unparsed, group.reasoner_failed, group.half)
    assert counted == (7, 1, 1, 1, 1)
    assert group.segmenter_failed == 1
    assert group.without_answer == 3


def test_a_run_does_not_differ_from_itself() -> None:
    for result in compare(some(20), some(20), ("both", "both"), 0).values():
        assert result.difference.mean == result.better == result.worse == 0
        assert result.p == 1


def test_a_comparison_is_paired_by_id() -> None:
    rng = np.random.default_rng(1)
    first = some(40)
    gain = rng.normal(0.03, 0.08, 40)
    second = [
        case(known.id, float(np.clip(known.iou + change, 0, 1)))
        for known, change in zip(first, gain, strict=True)
    ]
    result = compare(first, [*second[::-1], case("only here", 1)], ("both", "both"), 0)["iou"]
    change = np.array([b.iou - a.iou for a, b in zip(first, second, strict=True)])
    oracle = stats.permutation_test(
        (change,), np.mean, permutation_type="samples", n_resamples=20_000, rng=2
    ).pvalue
    assert result.n == 40
    assert result.difference.mean == pytest.approx(change.mean())
    assert (result.better, result.worse) == ((change > 0).sum(), (change < 0).sum())
    assert result.p == pytest.approx(oracle, abs=0.02)
    assert set(compare(first, second, ("both", "both"), 0)) == set(MEASURES)


def test_runs_of_different_data_are_not_compared() -> None:
    with pytest.raises(InputError, match="no case in common"):
        compare([case("a", 1)], [case("b", 1)], ("both", "both"), 0)
