"""The shape of the rewards, on a policy of eight numbers: Base released << Base < Hard ~ Soft.

Each target has a Gaussian over its eight coordinates on a grid of 840, moved by REINFORCE with the
advantages of groups, as GRPO takes them; no model is involved. Rewards that are all or nothing
leave most groups without variance, and those that lost the box to a fault leave nearly all.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from medreasoner_trainer.rewards.score import PRESETS, score
from medreasoner_trainer.rewards.truth import Truth
from napari_medreasoner.core.metrics import corners_iou

TARGETS, GROUP, STEPS = 24, 16, 70
START, SIGMA, RATE = 70.0, 40.0, 0.5


def completion(x: np.ndarray) -> str:
    numbers = [round(float(value), 1) for value in x]
    fields = {"bbox": numbers[:4], "points_1": numbers[4:6], "points_2": numbers[6:]}
    return f"<think>There.</think><answer>{json.dumps(fields)}</answer>"


def targets(rng: np.random.Generator) -> np.ndarray:
    """x1, y1, x2, y2 and two points inside, of shape (target, 8)."""
    size = rng.uniform(60, 400, (TARGETS, 2))
    corner = rng.uniform(0, 1, (TARGETS, 2)) * (840 - size)
    first, second = corner + size * (0.35, 0.4), corner + size * (0.65, 0.7)
    return np.hstack([corner, corner + size, first, second])


def arm(preset: str, seed: int = 0) -> tuple[float, float]:
    """IoU of the mean at the end, and the share of groups without variance."""
    rng = np.random.default_rng(seed)
    goals = targets(rng)
    mean = goals + rng.normal(0, START, goals.shape)
    flat = 0
    truths = [Truth(tuple(g[:4]), (tuple(g[4:6]), tuple(g[6:]))) for g in goals.tolist()]  # type: ignore[arg-type]
    for _ in range(STEPS):
        for place, truth in enumerate(truths):
            noise = rng.normal(0, SIGMA, (GROUP, 8))
            rewards = np.array(
                [score(completion(mean[place] + n), truth, PRESETS[preset])["score"] for n in noise]
            )
            flat += rewards.std() < 1e-6
            advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
            mean[place] += RATE * (advantages[:, None] * noise).mean(axis=0)
    ious = [
        corners_iou(tuple(m[:4]), tuple(g[:4]))
        for m, g in zip(mean.tolist(), goals.tolist(), strict=True)
    ]  # type: ignore[arg-type]
    return float(np.mean(ious)), flat / (STEPS * TARGETS)


@pytest.fixture(scope="module")
def arms() -> dict[str, tuple[float, float]]:
    return {name: arm(name) for name in PRESETS}


def test_dense_rewards_lead_further_than_all_or_nothing(
    arms: dict[str, tuple[float, float]],
) -> None:
    iou = {name: reached for name, (reached, _) in arms.items()}
    assert iou["base-released"] < 0.55
    assert iou["base"] > iou["base-released"] + 0.15
    assert min(iou["hard"], iou["soft"]) > iou["base"] + 0.05
    assert iou["hard"] == pytest.approx(iou["soft"], abs=0.06)


def test_all_or_nothing_leaves_groups_without_variance(
    arms: dict[str, tuple[float, float]],
) -> None:
    flat = {name: share for name, (_, share) in arms.items()}
    assert flat["base-released"] > 0.5
    assert flat["base-released"] > flat["base"] + 0.2
    assert max(flat["hard"], flat["soft"]) < 0.03
