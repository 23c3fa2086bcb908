"""What the trainings of the embedded models share: a schedule, a log, milestones."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["LOG", "Loop", "cosine", "optimise"]

LOG: Final = "log.jsonl"
_LEAST: Final = 1e-3
"""Learning rate at the end, over that at the start."""

_LARGEST_GRADIENT: Final = 1.0

Figures = Mapping[str, float]
Descent = tuple[Optimizer, LambdaLR]
"""An optimiser and its schedule."""


def cosine(optimiser: Optimizer, steps: int, warmup: int) -> LambdaLR:
    """Learning rates that rise for `warmup` steps and fall along a cosine."""

    def share(step: int) -> float:
        fallen = (1 + cos(pi * min(step / steps, 1.0))) / 2
        return min(1.0, (step + 1) / warmup) * (fallen + _LEAST)

    return LambdaLR(optimiser, share)


def optimise(network: nn.Module, loss: Any, *descents: Descent) -> None:
    """One step down a loss, its gradient clipped."""
    network.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
    for optimiser, schedule in descents:
        optimiser.step()
        schedule.step()


@dataclass(frozen=True)
class Loop:
    """A training of so many steps.

    Attributes
    ----------
    out : Path
        Folder of its files; `log.jsonl` gets a line every `every` steps.
    steps : int
        In all.
    every, milestones : int
        Steps between lines, and between milestones; the last step is one.
    report : callable
        Is told each line.
    """

    out: Path
    steps: int
    every: int
    milestones: int
    report: Callable[[str], None]

    def run(
        self,
        step: Callable[[int], Figures],
        milestone: Callable[[int], Figures],
        start: int = 0,
    ) -> None:
        """Train.

        Parameters
        ----------
        step : callable
            Does one step, numbered from 0, and gives figures that are averaged over a line.
        milestone : callable
            Saves and judges after so many steps; its figures are added to the line.
        start : int
            Steps that have been done.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        seen: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(start, self.steps):
            for name, value in step(number).items():
                seen[name].append(value)
            done = number + 1
            last = done == self.steps
            line: dict[str, float] = {}
            if last or done % self.every == 0 or done % self.milestones == 0:
                line = {name: round(float(np.mean(found)), 4) for name, found in seen.items()}
                seen.clear()
            if last or done % self.milestones == 0:
                line |= milestone(done)
            if line:
                self._write({"step": done} | line)

    def _write(self, line: dict[str, float]) -> None:
        text = json.dumps(line)
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        self.report(text)
