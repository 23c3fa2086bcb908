"""Coordinates, each of which is one token: near numbers are told to be nearly alike."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Coordinates", "number_tokens", "order_numbers"]

Head = Callable[[Tensor], Tensor]

_PERIODS: Final = (4.0, 900.0)
"""Shortest and longest wave, in pixels."""


def number_tokens(tokenizer: Any) -> Tensor:
    """Tokens of 0, 1, 2, and so on, as far as each is one token."""
    words = tokenizer.get_vocab()
    count = 0
    while str(count) in words:
        count += 1
    return torch.tensor([words[str(number)] for number in range(count)])


@torch.no_grad()
def order_numbers(model: Any, tokenizer: Any, seed: int) -> None:
    """Let embeddings of numbers begin as waves over the number line, turned at random.

    They are also what a coordinate is chosen by, so that from the start a hidden state that speaks
    for a number speaks nearly as much for the next. Waves as in Tancik et al., 2020 (Fourier
    features); as long as other embeddings.

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
        Changed in place.
    tokenizer : Any
        Its tokenizer.
    seed : int
        Of phases and of the turn.
    """
    draw = torch.Generator().manual_seed(seed)
    tokens = number_tokens(tokenizer)
    width = model.config.text_config.hidden_size
    shortest, longest = _PERIODS
    periods = shortest * torch.exp(torch.linspace(0, log(longest / shortest), width // 2))
    phases = 2 * pi * torch.rand(width // 2, generator=draw)
    angles = 2 * pi * torch.arange(len(tokens))[:, None] / periods + phases
    waves = 2**0.5 * torch.cat([angles.cos(), angles.sin()], dim=1)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=draw))
    scale = model.config.text_config.initializer_range
    model.get_input_embeddings().weight[tokens] = scale * waves @ turn


class Coordinates:
    """The tokens of a vocabulary that are numbers, and their spread labels.

    Parameters
    ----------
    tokenizer : Any
        Every number up to some largest one is one token.
    spread : float
        Standard deviation in pixels.
    """

    def __init__(self, tokenizer: Any, spread: float) -> None:
        self.tokens = number_tokens(tokenizer)
        count = len(self.tokens)
        self.number = torch.full((len(tokenizer),), -1)
        self.number[self.tokens] = torch.arange(count)
        self.underscore = tokenizer.get_vocab()["_"]
        gap = torch.arange(count)[None] - torch.arange(count)[:, None]
        self.target = torch.zeros(count, len(tokenizer))
        self.target[:, self.tokens] = torch.softmax(-(gap.float() ** 2) / (2 * spread**2), dim=1)

    def placed(self, labels: Tensor, before: Tensor) -> Tensor:
        """Which labels are coordinates, given the token before each: "1" in "points_1" is none."""
        placed: Tensor = (self.number[labels] >= 0) & (before != self.underscore)
        return placed

    def loss(
        self, head: Head, states: Tensor, labels: Tensor, placed: Tensor, weight: float
    ) -> Tensor:
        """Cross entropy; labels that are coordinates count `weight` times.

        Parameters
        ----------
        head : callable
            Logits, of shape (token, vocabulary), of hidden states.
        states : Tensor, shape (token, width)
            Of the tokens with a label.
        labels : Tensor of int, shape (token,)
            Those labels.
        placed : Tensor of bool, shape (token,)
            Which of these are coordinates; their labels are spread.
        weight : float
            Of coordinates.
        """
        # Two products: logits that are taken apart afterwards have gradients of full size.
        words = functional.cross_entropy(head(states[~placed]), labels[~placed], reduction="sum")
        near = self.target[self.number[labels[placed]]]
        soft = functional.cross_entropy(head(states[placed]), near, reduction="sum")
        mean: Tensor = (words + weight * soft) / (len(labels) + (weight - 1) * placed.sum())
        return mean
