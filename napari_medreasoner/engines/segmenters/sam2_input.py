"""Pictures and prompts as SAM 2 takes them, by transformers and by the package `sam2`."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.engines.segmenters.common import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    box_corners,
    clicks,
)

__all__ = ["mask_square", "prepared", "prompt_tokens"]

_FIRST_CORNER: Final = 2
_LAST_CORNER: Final = 3


def prepared(picture: NDArray[np.uint8], side: int) -> torch.Tensor:
    """A picture as the encoder takes it, of shape (3, side, side), in float32 on the CPU."""
    scaled = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] / 255
    square = functional.interpolate(
        scaled, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    mean, deviation = (torch.tensor(of)[:, None, None] for of in (IMAGENET_MEAN, IMAGENET_STD))
    return ((square - mean) / deviation)[0]


def prompt_tokens(
    prompts: Prompts, size: tuple[int, int], side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of shape (1, 1, token, 2) in (x, y) and their labels of shape (1, 1, token).

    A box is two tokens before the points, as the model was trained.
    """
    corners = box_corners(prompts, size, side)
    places = clicks(prompts, size, side)
    labels = [int(point.positive) for point in prompts.points]
    if corners is not None:
        places = np.concatenate([corners, places])
        labels = [_FIRST_CORNER, _LAST_CORNER, *labels]
    return torch.from_numpy(places)[None, None], torch.tensor(labels, dtype=torch.int32)[None, None]


def mask_square(mask: NDArray[np.bool_], side: int) -> torch.Tensor:
    """A given mask in the model's square: zeros and ones of shape (1, 1, side, side)."""
    square = functional.interpolate(
        torch.from_numpy(mask)[None, None].float(),
        (side, side),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return (square >= 0.5).float()
