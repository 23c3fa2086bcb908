"""A U-Net (Ronneberger et al., MICCAI 2015) with residual blocks and prompts as channels."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_medreasoner.engines.embedded.window import CHANNELS

__all__ = ["WIDTHS", "PromptUNet"]

WIDTHS: Final = (32, 64, 96, 128, 160)
"""Channels at a half, a quarter, ... of the window's resolution."""


class _Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.around = nn.Conv2d(channels, width, 1)

    def forward(self, values: Tensor) -> Tensor:
        found = functional.relu(self.first_norm(self.first(values)))
        return functional.relu(self.second_norm(self.second(found)) + self.around(values))


class PromptUNet(nn.Module):
    """Logits of a mask from a window and its prompts.

    The first level folds 2 x 2 pixels into channels and the last unfolds them: convolutions at
    full resolution would cost more than all others together.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        inputs = (4 * CHANNELS, *widths)
        self.down = nn.ModuleList(_Block(*pair) for pair in pairwise(inputs))
        self.up = nn.ModuleList(_Block(deep + wide, wide) for wide, deep in pairwise(widths))
        self.head = nn.Conv2d(widths[0], 4, 1)

    def forward(self, planes: Tensor) -> Tensor:
        """Logits of shape (batch, SIDE, SIDE) of planes (batch, CHANNELS, SIDE, SIDE)."""
        values = functional.pixel_unshuffle(planes, 2)
        levels = []
        for level, block in enumerate(self.down):
            values = block(functional.max_pool2d(values, 2) if level else values)
            levels.append(values)
        levels.pop()
        for block in reversed(self.up):
            raised = functional.interpolate(values, scale_factor=2.0, mode="nearest")
            values = block(torch.cat([raised, levels.pop()], dim=1))
        return functional.pixel_shuffle(self.head(values), 2)[:, 0]
