"""Callbacks of a run: logs, the guard against collapse, and signals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainerCallback

from medreasoner_trainer.training.config import Guard
from medreasoner_trainer.training.history import Evaluations, History

__all__ = ["CollapseGuard", "Logger", "SignalCatcher"]

_SHOWN: Final = ("loss", "reward", "kl", "grad_norm", "frac_reward_zero_std")


def _numbers(logs: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}


class Logger(TrainerCallback):  # type: ignore[misc]
    """Writes `log.jsonl` and one short line a log to standard error."""

    def __init__(self, history: History) -> None:
        self._history = history

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write what was logged."""
        if not state.is_world_process_zero or not logs:
            return
        numbers = _numbers(logs)
        self._history.add(state.global_step, numbers)
        shown = [f"{name} {numbers[name]:.4g}" for name in _SHOWN if name in numbers]
        if shown:
            sys.stderr.write(f"step {state.global_step}/{state.max_steps}: {', '.join(shown)}\n")


class CollapseGuard(TrainerCallback):  # type: ignore[misc]
    """Stops a run that has gone wrong; it reads only what is kept, so a resumed run agrees.

    Attributes
    ----------
    reason : str
        Why it stopped the run; empty when it did not.
    """

    def __init__(self, settings: Guard, evaluations: Evaluations) -> None:
        self._settings = settings
        self._evaluations = evaluations
        self.reason = ""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Judge the last logs."""
        self.reason = self.reason or self.verdict(state.log_history)
        if self.reason:
            control.should_training_stop = True
            control.should_save = True

    def verdict(self, history: Sequence[dict[str, Any]]) -> str:
        """Why a run with these logs should stop; empty when it may go on."""
        limits = self._settings
        if (kl := self._lasting(history, "kl", lambda kl, _: kl > limits.max_kl)) is not None:
            return f"KL has stayed above {limits.max_kl:g} ({kl:.3g})"
        name = "sampling/sampling_logp_difference/mean"
        drift = self._lasting(history, name, lambda value, _: value > limits.off_policy)
        if drift is not None:
            return f"vLLM and the trainer have stayed {drift:.3g} apart in log-probability"

        def fallen(reward: float, best: float) -> bool:
            return best > 0 and reward < (1 - limits.reward_drop) * best

        if (reward := self._lasting(history, "reward", fallen)) is not None:
            return f"the mean reward has fallen to {reward:.3g}"
        failures = [line["parse_failures"] for line in self._evaluations.lines()]
        if failures and failures[-1] - failures[0] > limits.parse_failures:
            return f"{failures[-1]:.0%} of the validation answers can no longer be read"
        return ""

    def _lasting(
        self,
        history: Sequence[dict[str, Any]],
        name: str,
        bad: Callable[[float, float], bool],
    ) -> float | None:
        """The last value where it and those before it are all bad; `bad` also gets the highest."""
        values = [line[name] for line in history if line.get(name) is not None]
        last = values[-self._settings.patience :]
        if len(last) < self._settings.patience:
            return None
        best = max(values)
        return last[-1] if all(bad(value, best) for value in last) else None


class SignalCatcher(TrainerCallback):  # type: ignore[misc]
    """Ends a run at the next step a run can be gone on with, when it is asked to.

    SIGTERM and SIGINT ask, and so does a file: what launches several processes kills them soon
    after a signal, which a batch script therefore does not send.

    Parameters
    ----------
    every : int
        Steps per rollout: in between, a run cannot be gone on with exactly.
    file : Path
        Asks by being there.

    Attributes
    ----------
    caught : bool
        Whether it was, here or in another process of the run.
    """

    def __init__(self, every: int, file: Path) -> None:
        self._every = every
        self._file = file
        self._asked = False
        self._before: dict[int, Any] = {}
        self.caught = False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Begin to listen."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Put back who listened before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop, on all devices at the same step."""
        if state.global_step % self._every:
            return
        if _anywhere(self._asked or self._file.exists(), args.device):
            self.caught = True
            control.should_save = True
            control.should_training_stop = True


def _anywhere(asked: bool, device: torch.device) -> bool:
    """Whether a process of the run was asked."""
    if not torch.distributed.is_initialized():
        return asked
    flag = torch.tensor([float(asked)], device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
