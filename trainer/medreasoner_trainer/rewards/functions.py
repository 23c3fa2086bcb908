"""The components of a preset as separate reward functions, as trainers weigh and log them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from medreasoner_trainer.rewards.score import Preset, score
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.rewards.variants import Variant

__all__ = ["ComponentReward", "reward_functions"]

_KEPT: Final = 8192
"""Completions whose components are kept: more than a step has."""


class ComponentReward:
    """One component of a preset; called with equally many completions and truths.

    Attributes
    ----------
    __name__ : str
        The component's name, under which a trainer logs it.
    """

    def __init__(self, name: str, judge: Callable[[str, Truth], dict[str, float]]) -> None:
        self.__name__ = name
        self._judge = judge

    def __call__(self, completions: Sequence[str], truths: Sequence[Truth]) -> list[float]:
        """The component of each completion, in order."""
        return [
            self._judge(completion, truth)[self.__name__]
            for completion, truth in zip(completions, truths, strict=True)
        ]


def reward_functions(preset: Preset, variant: Variant) -> list[ComponentReward]:
    """One function for each component that counts; together they judge a completion once.

    Their sum is the "score" of `medreasoner_trainer.rewards.score.score`.
    """

    @lru_cache(maxsize=_KEPT)
    def judge(completion: str, truth: Truth) -> dict[str, float]:
        return score(completion, truth, preset, variant)

    return [ComponentReward(name, judge) for name in preset.counted]
