"""Trains the embedded segmenter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medreasoner_trainer.embedded.loop import Loop, cosine, optimise
from medreasoner_trainer.embedded.segmenter.examples import Example, Source
from medreasoner_trainer.embedded.segmenter.network import PromptUNet
from medreasoner_trainer.embedded.segmenter.simulation import Given, click, given_at_random
from napari_medreasoner.engines.models.weights import read_tensors
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = ["NETWORK", "SegmenterRecipe", "SegmenterTraining"]

NETWORK: Final = "network.pt"
"""The averaged weights."""

_STATE: Final = "state.pt"
_CLICKS: Final = (1, 1, 2)
"""Corrections of a batch that is corrected."""


@dataclass(frozen=True)
class SegmenterRecipe:
    """How the network is trained.

    Attributes
    ----------
    steps, batch : int
        Updates, and windows of each.
    learning_rate, weight_decay, warmup
        Of AdamW and its cosine.
    corrected : float
        Share of batches in which the mask so far is corrected by one or two clicks.
    average : float
        Decay of the average of weights over steps.
    save : int
        Steps between states that a run can go on from.
    seed : int
        Of weights and draws; a step draws the same whether or not the run was broken off before.
    """

    steps: int = 4000
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 100
    corrected: float = 0.4
    average: float = 0.998
    save: int = 250
    seed: int = 0


class SegmenterTraining:
    """A run that goes on from its folder where it was broken off.

    Parameters
    ----------
    source : Source
        Draws windows.
    recipe : SegmenterRecipe
        What is done.
    out : Path
        Folder.
    """

    def __init__(self, source: Source, recipe: SegmenterRecipe, out: Path) -> None:
        torch.manual_seed(recipe.seed)
        self._source, self._recipe, self._out = source, recipe, out
        self._network = PromptUNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._averaged = AveragedModel(
            self._network, multi_avg_fn=_average(recipe.average), use_buffers=True
        )
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._schedule = cosine(self._optimiser, recipe.steps, recipe.warmup)

    def run(self, report: Callable[[str], None]) -> None:
        """Train to the end; `network.pt` holds the averaged weights."""
        start = self._restore()
        Loop(self._out, self._recipe.steps, 100, self._recipe.save, report).run(
            self._step, self._save, start
        )

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "averaged": self._averaged,
            "optimiser": self._optimiser,
            "schedule": self._schedule,
        }

    def _restore(self) -> int:
        state = self._out / _STATE
        if not state.is_file():
            return 0
        kept = read_tensors(state)
        for name, part in self._parts.items():
            part.load_state_dict(kept[name])
        return int(kept["step"])

    def _save(self, step: int) -> dict[str, float]:
        state = {name: part.state_dict() for name, part in self._parts.items()}
        for name, content in ((_STATE, state | {"step": step}), (NETWORK, self._best)):
            with replace_atomically(self._out / name) as file:
                torch.save(content, file)
        return {}

    @property
    def _best(self) -> dict[str, Any]:
        weights: dict[str, Any] = self._averaged.module.state_dict()
        return weights

    def _step(self, step: int) -> dict[str, float]:
        draw = np.random.default_rng((self._recipe.seed, step))
        examples = [self._source.draw(draw) for _ in range(self._recipe.batch)]
        given = [given_at_random(example.mask, example.kind, draw) for example in examples]
        if draw.random() < self._recipe.corrected:
            given = self._corrected(examples, given, draw)
        self._network.train()
        logits = self._network(_planes(examples, given))
        truth = torch.from_numpy(np.stack([example.mask for example in examples])).float()
        seen = torch.from_numpy(np.stack([example.seen[3] for example in examples]))
        loss = _loss(logits, truth, seen)
        optimise(self._network, loss, (self._optimiser, self._schedule))
        self._averaged.update_parameters(self._network)
        return {"loss": loss.item()}

    def _corrected(
        self, examples: list[Example], given: list[Given], draw: Generator
    ) -> list[Given]:
        for _ in range(int(draw.choice(_CLICKS))):
            found = _probabilities(self._averaged.module, examples, given)
            given = [
                click(told, example.mask, share)
                for told, example, share in zip(given, examples, found, strict=True)
            ]
        return given


def _average(decay: float) -> Any:
    return get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]


def _planes(examples: list[Example], given: list[Given]) -> Tensor:
    pairs = zip(examples, given, strict=True)
    stacked = np.stack([np.concatenate([example.seen, told.planes]) for example, told in pairs])
    return torch.from_numpy(stacked).to(memory_format=torch.channels_last)


@torch.no_grad()
def _probabilities(
    network: nn.Module, examples: list[Example], given: list[Given]
) -> NDArray[np.float32]:
    network.eval()
    found: NDArray[np.float32] = network(_planes(examples, given)).sigmoid().numpy()
    return found


def _loss(logits: Tensor, truth: Tensor, seen: Tensor) -> Tensor:
    """Cross entropy and soft Dice, of the part of the window that is in the picture."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    found = logits.sigmoid() * seen
    axes = (1, 2)
    overlap = (2 * (found * truth).sum(axes) + 1) / (found.sum(axes) + truth.sum(axes) + 1)
    return (entropy * seen).mean() + (1 - overlap).mean()
