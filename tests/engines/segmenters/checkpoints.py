"""Small checkpoints with random weights, in the layouts the real ones have."""

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


def shake(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, where a fresh model has zeros that would hide what they do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not bool(tensor.any()):
                tensor.copy_(0.02 * torch.randn(tensor.shape, generator=generator))
            if name.endswith(("object_score", "pred_obj_score_head.layers.2.bias")):
                tensor.fill_(4.0)  # the object is there


def save_authors_sam2(folder: Path) -> Path:
    """MedSAM2's own file: SAM 2.1 tiny for squares of 512, built and named by `sam2`."""
    from napari_medreasoner.engines.segmenters.sam2_reference import build

    torch.manual_seed(1)
    model = build(512)
    shake(model)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, folder / MEDSAM2_FILE)
    return folder / MEDSAM2_FILE


def save_small_sam2(folder: Path, seed: int = 2) -> Path:
    """SAM 2.1 tiny for small squares, in transformers' layout."""
    torch.manual_seed(seed)
    model = Tracker(configuration(SMALL))
    shake(model)
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(4.0)
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
