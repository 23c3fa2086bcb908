"""Makes a trained tower's tokens fit for a language model to read.

The tower's training leaves most of a token's length in one direction that all pictures share, and
tokens a hundred times as long as a word's: what a language model adds to them in its layers would
be lost. Whitening (Kessy et al., 2018, ZCA) is linear, and so goes into the weights of the tower's
last layer.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from medreasoner_trainer.embedded.reasoner.views import Pictures
from napari_medreasoner.engines.embedded.patches import patches_of

__all__ = ["whiten_tokens"]

_VIEWS: Final = 256
_LEAST: Final = 1e-2
"""Added to variances, as a share of their mean: directions without content are not blown up."""

_LENGTH: Final = 1.0
"""Of tokens afterwards, about that of a word's embedding in training."""


@torch.no_grad()
def whiten_tokens(visual: Any, pictures: Pictures, seed: int) -> None:
    """Change the tower's last layer so that its tokens are centred and spread evenly.

    Parameters
    ----------
    visual : Module
        A Qwen2.5-VL vision tower, changed in place.
    pictures : Pictures
        Views of these are looked at.
    seed : int
        Of which views.
    """
    tokens = _tokens(visual, pictures, np.random.default_rng(seed))
    middle = tokens.mean(dim=0)
    spread, axes = torch.linalg.eigh(torch.cov(tokens.T))
    spread = spread.clamp(min=0) + _LEAST * spread.mean()
    evened = axes @ torch.diag(spread.rsqrt()) @ axes.T * (_LENGTH / len(middle) ** 0.5)
    last = visual.merger.mlp[2]
    last.weight.copy_((evened @ last.weight.double()).float())
    last.bias.copy_((evened @ (last.bias.double() - middle)).float())


def _tokens(visual: Any, pictures: Pictures, draw: np.random.Generator) -> Tensor:
    seen = []
    for _ in range(_VIEWS):
        patches, grid = patches_of(pictures.draw(draw).picture)
        grids = torch.tensor([[1, *grid]])
        seen.append(visual(torch.from_numpy(patches), grid_thw=grids).pooler_output)
    return torch.cat(seen).double()
