"""The components of a preset as the reward functions that TRL calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from medreasoner_trainer.rewards.functions import ComponentReward, reward_functions
from medreasoner_trainer.rewards.score import PRESETS
from medreasoner_trainer.rewards.variants import VARIANTS
from medreasoner_trainer.training.config import Reward
from medreasoner_trainer.training.examples import Examples

__all__ = ["RECORD", "GroupReward", "group_rewards", "reward_weights"]

RECORD: Final = "record"
"""Column of TRL's table of completions with the record's index."""

_FULL: Final = 0.999


class GroupReward:
    """One component, logged by name with its mean, deviation and saturation.

    Parameters
    ----------
    component : ComponentReward
        Judges completions.
    examples : Examples
        Holds the truths.
    first : bool
        Whether this one also writes down which record each completion belongs to.

    Attributes
    ----------
    __name__ : str
        The component's.
    """

    def __init__(self, component: ComponentReward, examples: Examples, *, first: bool) -> None:
        self.__name__ = component.__name__
        self._component = component
        self._examples = examples
        self._first = first

    def __call__(
        self,
        completions: Sequence[list[dict[str, str]]],
        index: Sequence[int],
        log_metric: Callable[[str, float], None],
        log_extra: Callable[[str, list[int]], None],
        **_columns: Any,
    ) -> list[float]:
        """The component of each completion, finite and 0 to 1."""
        truths = [self._examples.truth(number) for number in index]
        values = self._component([messages[0]["content"] for messages in completions], truths)
        full = sum(value >= _FULL for value in values) / len(values)
        log_metric(f"saturated/{self.__name__}", full)
        if self._first:
            log_extra(RECORD, list(index))
        return values


def group_rewards(reward: Reward, examples: Examples) -> list[GroupReward]:
    """One function for each component that counts; together they judge a completion once."""
    components = reward_functions(PRESETS[reward.preset], VARIANTS[reward.variant])
    return [
        GroupReward(component, examples, first=place == 0)
        for place, component in enumerate(components)
    ]


def reward_weights(reward: Reward) -> list[float]:
    """Weights in the order of `group_rewards`."""
    return [reward.weights.get(name, 1.0) for name in PRESETS[reward.preset].counted]
