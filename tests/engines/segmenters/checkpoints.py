"""Small checkpoints with random weights, in the layouts the real ones have."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.engines.segmenters.sam2_weights import Tracker, configuration

MEDSAM2_FILE = "MedSAM2_latest.pt"
SMALL = 128
"""Side of the square of the models in transformers' layout: quick, as it is not 512."""


def shake(model: torch.nn.Module) -> None:
    """Random weights of torch's usual size, where a fresh model's hide what they do.

    The bias of the object's score says that the object is there, or nothing would be followed.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Embedding):
            module.reset_parameters()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and float(tensor.abs().max()) < 1e-3:
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
            if re.search(r"pred_obj_score_head\.(layers\.2|proj_out)\.bias", name):
                tensor.fill_(4.0)


def save_authors_sam2(folder: Path, side: int = 512) -> Path:
    """MedSAM2's own file: SAM 2.1 tiny, built and named by `sam2`."""
    from napari_medreasoner.engines.segmenters.sam2_reference import build

    torch.manual_seed(1)
    model = build(side)
    shake(model)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, folder / MEDSAM2_FILE)
    return folder / MEDSAM2_FILE


def save_small_sam2(folder: Path) -> Path:
    """SAM 2.1 tiny for small squares, in transformers' layout."""
    torch.manual_seed(4)
    model = Tracker(configuration(SMALL))
    shake(model)
    model.save_pretrained(folder)
    return folder


def picture(height: int, width: int, seed: int = 3) -> NDArray[np.uint8]:
    """A smooth disc on noise, so that there is something to see."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    disc = np.hypot(rows - height / 2, columns - width / 2) < min(height, width) / 4
    grey = 60 + 110 * disc + generator.normal(0, 12, (height, width))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def prompts(height: int, width: int) -> Prompts:
    """A box round the disc, a yes in its middle and a no at its side."""
    return Prompts(
        box=Box.from_corners(width // 4, height // 4, width * 3 // 4, height * 3 // 4),
        points=(
            Point(x=width // 2, y=height // 2),
            Point(x=width // 3, y=height // 8, positive=False),
        ),
    )


def volume(depth: int, height: int, width: int) -> list[Any]:
    """Slices with the disc in all of them."""
    return [picture(height, width, seed) for seed in range(depth)]
