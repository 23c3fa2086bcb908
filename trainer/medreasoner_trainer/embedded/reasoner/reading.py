"""Teaches the language model to read questions before it is shown pictures.

Without pictures a question costs a fifth, and names are what a small model confuses most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medreasoner_trainer.embedded.loop import Loop, cosine, optimise
from medreasoner_trainer.embedded.reasoner.batches import IGNORED, Batches, Tokens

__all__ = ["ReadingRecipe", "ReadingTraining"]


@dataclass(frozen=True)
class ReadingRecipe:
    """How reading is trained.

    Attributes
    ----------
    steps, texts : int
        Updates, and questions of each.
    unclear, pieces : float
        Shares of questions; see `Wording.draw`.
    learning_rate, weight_decay, warmup
        Of AdamW and its cosine.
    seed : int
        Of draws.
    """

    steps: int = 1500
    texts: int = 56
    unclear: float = 0.4
    pieces: float = 0.6
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.05
    warmup: int = 30
    seed: int = 0


class ReadingTraining:
    """Trains the language model alone.

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
        Its vision tower is left as it is.
    batches : Batches
        What it learns from.
    recipe : ReadingRecipe
        How.
    out : Path
        Folder of its log.
    """

    def __init__(self, model: Any, batches: Batches, recipe: ReadingRecipe, out: Path) -> None:
        self._model, self._batches, self._recipe, self._out = model, batches, recipe, out
        self._optimiser = torch.optim.AdamW(
            [weights for name, weights in model.named_parameters() if ".visual." not in name],
            recipe.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
        )
        self._schedule = cosine(self._optimiser, recipe.steps, recipe.warmup)

    def run(self, report: Callable[[str], None]) -> None:
        """Train to the end."""
        Loop(self._out, self._recipe.steps, 50, 250, report).run(self._step, lambda _: {})

    def _step(self, step: int) -> dict[str, float]:
        recipe = self._recipe
        draw = np.random.default_rng((recipe.seed, step))
        texts = self._batches.readings(recipe.texts, recipe.unclear, recipe.pieces, draw)
        loss = reading_loss(self._model, texts)
        optimise(self._model, loss, (self._optimiser, self._schedule))
        return {"loss": loss.item()}


def reading_loss(model: Any, texts: Tokens) -> Tensor:
    """Cross entropy of the labelled tokens of texts without pictures."""
    hidden = model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(texts.ids),
        attention_mask=texts.attended,
        use_cache=False,
    ).last_hidden_state
    learned = texts.labels != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[learned]), texts.labels[learned])
