"""Supervised cold start: questions in words, answers as text, on random views.

What TRL's SFT does, and two things it does not: every picture is seen anew each time, and the
label of a coordinate is spread over the numbers next to it, as a box that is one pixel off is
almost right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import DynamicCache

from medreasoner_trainer.embedded.loop import Loop, cosine, optimise
from medreasoner_trainer.embedded.reasoner.batches import IGNORED, Batches, Rows, Tokens, Wanted
from medreasoner_trainer.embedded.reasoner.numbers import Coordinates
from medreasoner_trainer.embedded.reasoner.pointing import Pointer
from medreasoner_trainer.embedded.reasoner.vision import make_fast
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = ["MODEL", "STAGES", "SupervisedRecipe", "SupervisedTraining"]

MODEL: Final = "model.pt"

_TOLD: Final = 1 / 3
"""Share of the words after a name that a step learns from: most are the same in every answer, and
every logit of the vocabulary takes time."""


@dataclass(frozen=True)
class SupervisedRecipe(Wanted):
    """How the whole model is trained.

    Attributes
    ----------
    steps : int
        Updates; what is drawn for each is inherited.
    learning_rate, matrix_rate, weight_decay, warmup
        Of AdamW and its cosine; matrices of the language model's layers are left to Muon, at a
        rate of their own.
    spread : float
        Standard deviation, in pixels, by which labels of coordinates are spread.
    coordinate_weight : float
        How much they count, other words being 1.
    pointing : float
        Weight of what `Pointer` learns.
    seed : int
        Of draws.
    """

    steps: int = 1300
    learning_rate: float = 1e-3
    matrix_rate: float = 3e-3
    weight_decay: float = 0.02
    warmup: int = 40
    spread: float = 8.0
    coordinate_weight: float = 2.0
    pointing: float = 0.25
    seed: int = 0


_FIRST: Final = SupervisedRecipe(
    pictures=8,
    questions=3,
    readings=1,
    unclear=0.4,
    pieces=0.4,
    steps=4500,
    learning_rate=1.2e-3,
    seed=1,
)
STAGES: Final = (
    _FIRST,
    replace(_FIRST, refused=0.1, steps=3700, learning_rate=8e-4, seed=3),
)
"""What `medreasoner-train embedded reasoner` trains in, one after the other."""


def hidden_of(model: Any, rows: Rows) -> list[Tensor]:
    """Hidden states of the last layer, of shape (sequence, token, width), of each group of texts.

    Each picture is looked at once, whoever asks about it; texts attend to the keys and values
    that the language model made of it. The vision tower gets no gradient.
    """
    inner, shown = model.model, rows.shown
    with torch.no_grad():
        seen = inner.visual(rows.patches, grid_thw=rows.grids).pooler_output
    pictured = shown.ids == inner.config.image_token_id
    positions, _ = inner.get_rope_index(
        shown.ids,
        mm_token_type_ids=pictured.int(),
        image_grid_thw=rows.grids,
        attention_mask=shown.attended,
    )
    embedded = inner.get_input_embeddings()(shown.ids).masked_scatter(pictured[..., None], seen)
    kept = inner.language_model(
        inputs_embeds=embedded,
        attention_mask=shown.attended,
        position_ids=positions,
        use_cache=True,
    ).past_key_values
    ends = positions.amax(dim=(0, 2)) + 1
    return [_hidden(inner, texts, kept, shown.attended, ends) for texts in rows.texts]


def _hidden(inner: Any, texts: Tokens, kept: Any, attended: Tensor, ends: Tensor) -> Tensor:
    """Of texts that go on at `ends` from what was kept of their pictures."""
    own = [(layer.keys[texts.picture], layer.values[texts.picture]) for layer in kept.layers]
    positions = ends[texts.picture][:, None] + torch.arange(texts.ids.shape[1])[None]
    hidden: Tensor = inner.language_model(
        inputs_embeds=inner.get_input_embeddings()(texts.ids),
        attention_mask=torch.cat([attended[texts.picture], texts.attended], dim=1),
        position_ids=positions[None].expand(3, -1, -1),
        past_key_values=DynamicCache(own),
        use_cache=True,
    ).last_hidden_state
    return hidden


class SupervisedTraining:
    """Trains the language model on what its vision tower sees.

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
        With a tower that sees already.
    batches : Batches
        What it learns from.
    coordinates : Coordinates
        Spreads labels.
    recipe : SupervisedRecipe
        What is done.
    out : Path
        Folder; `model.pt` is the whole model.
    """

    def __init__(
        self,
        model: Any,
        batches: Batches,
        coordinates: Coordinates,
        recipe: SupervisedRecipe,
        out: Path,
    ) -> None:
        torch.manual_seed(recipe.seed)
        make_fast(model.model.visual)
        self._model, self._batches, self._coordinates = model, batches, coordinates
        self._recipe, self._out = recipe, out
        self._pointer = Pointer(model.config.text_config.hidden_size)
        self._both = nn.ModuleDict({"model": model, "pointer": self._pointer})
        self._descents = [
            (optimiser, cosine(optimiser, recipe.steps, recipe.warmup))
            for optimiser in _optimisers(model, self._pointer, recipe)
        ]

    def run(self, report: Callable[[str], None]) -> None:
        """Train to the end."""
        Loop(self._out, self._recipe.steps, 50, 250, report).run(self._step, self._save)

    def _step(self, step: int) -> dict[str, float]:
        recipe = self._recipe
        draw = np.random.default_rng((recipe.seed, step))
        rows = self._batches.draw(recipe, draw)
        hidden = hidden_of(self._model, rows)
        learned = [self._learned(*each, draw) for each in zip(rows.texts, hidden, strict=True)]
        states, labels, placed = (torch.cat(parts) for parts in zip(*learned, strict=True))
        loss = self._coordinates.loss(
            self._model.lm_head, states, labels, placed, recipe.coordinate_weight
        )
        pointed = torch.stack([*map(self._pointer.loss, rows.texts, hidden)]).sum()
        optimise(self._both, loss + recipe.pointing * pointed, *self._descents)
        return {"loss": loss.item(), "pointing": pointed.item()}

    def _learned(
        self, texts: Tokens, hidden: Tensor, draw: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states, labels, and which are coordinates, of the tokens that are learned."""
        placed = self._coordinates.placed(texts.labels.clamp(min=0), texts.ids)
        # Up to the word after the name's full stop: with it begins either a place or a refusal.
        before = torch.arange(texts.ids.shape[1])[None] <= texts.named[:, None] + 1
        some = torch.from_numpy(draw.random(texts.ids.shape) < _TOLD)
        learned = (texts.labels != IGNORED) & (placed | before | some)
        return hidden[learned], texts.labels[learned], placed[learned]

    def _save(self, step: int) -> dict[str, float]:
        with replace_atomically(self._out / MODEL) as file:
            torch.save(self._model.state_dict(), file)
        return {}


def _optimisers(model: Any, pointer: nn.Module, recipe: SupervisedRecipe) -> list[Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices of the layers, AdamW for the rest."""
    matrices = [each for each in model.model.language_model.layers.parameters() if each.ndim == 2]
    apart = {id(each) for each in (*matrices, *model.model.visual.parameters())}
    every = (*model.parameters(), *pointer.parameters())
    others = [each for each in every if id(each) not in apart]
    decay = recipe.weight_decay
    return [
        torch.optim.AdamW(others, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=decay),
        # Steps as long as AdamW's, so that rates compare.
        torch.optim.Muon(matrices, recipe.matrix_rate, decay, adjust_lr_fn="match_rms_adamw"),
    ]
