"""Teaches the language model to point while it speaks.

Of an answer's hundred tokens eight are coordinates, and each tells one number. A head, thrown
away afterwards, reads the whole place from the hidden state of every token after the structure
was named: what is said next and where that lies are learned from the same looks at the picture.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from medreasoner_trainer.embedded.reasoner.batches import Tokens
from medreasoner_trainer.embedded.reasoner.views import Target
from medreasoner_trainer.embedded.reasoner.vision import place_loss, shares_of

__all__ = ["Pointer"]

_GRID: Final = 12
"""Side of the coarse mask, in cells."""


class Pointer(nn.Module):
    """The head.

    Parameters
    ----------
    width : int
        Of hidden states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 8)
        )
        self.cells = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, _GRID**2))

    def loss(self, texts: Tokens, hidden: Tensor) -> Tensor:
        """Loss of box, points and coarse mask.

        Parameters
        ----------
        texts : Tokens
            Those without a target do not count.
        hidden : Tensor, shape (sequence, token, width)
            Of the last layer.
        """
        length = texts.ids.shape[1]
        after = texts.attended.bool() & (torch.arange(length)[None] >= texts.named[:, None])
        told = [at for at, target in enumerate(texts.targets) if target is not None]
        there = [target for target in texts.targets if target is not None]
        if not there:
            return hidden.new_zeros(())
        counts = after[told].sum(dim=1)
        states = hidden[told][after[told]]
        box, points, masks = (
            torch.tensor(values).repeat_interleave(counts, 0)
            for values in zip(*map(_place_of, there), strict=True)
        )
        places = place_loss(self.place(states), box, points)
        return places + functional.binary_cross_entropy_with_logits(self.cells(states), masks)


def _place_of(target: Target) -> tuple[list[float], list[float], list[float]]:
    """Box and points as shares of the view's sides, and the share of each cell that is covered."""
    coarse = torch.from_numpy(target.coarse)[None, None]
    cells = functional.adaptive_avg_pool2d(coarse, _GRID).flatten()
    points = (*target.points[0], *target.points[1])
    return shares_of(target.box, target), shares_of(points, target), cells.tolist()
