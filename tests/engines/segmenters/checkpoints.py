"""Small checkpoints with random weights, in the layouts the real ones have."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import SamConfig, SamModel

from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.engines.segmenters.sam2_weights import Tracker, configuration
from napari_medreasoner.engines.segmenters.sam_med2d_weights import AdaptedSam

MEDSAM2_FILE = "MedSAM2_latest.pt"
SAM_MED2D_FILE = "sam-med2d_b.pth"
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


def small_sam_config(side: int) -> SamConfig:
    """SAM with a narrow encoder: one layer with windows, one that sees all."""
    return SamConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "window_size": 3,
            "global_attn_indexes": [1],
        },
        prompt_encoder_config={"image_size": side},
    )


def save_small_medsam(folder: Path) -> Path:
    """MedSAM's layout, that of transformers."""
    torch.manual_seed(5)
    model = SamModel(small_sam_config(SMALL))
    shake(model)
    model.save_pretrained(folder)
    return folder


_TO_AUTHORS = (
    (r"vision_encoder\.layers\.(\d)\.mlp\.perceptron", r"image_encoder.blocks.\1.mlp"),
    (r"vision_encoder\.layers\.(\d)\.mlp\.adapter", r"image_encoder.blocks.\1.Adapter"),
    (r"vision_encoder\.layers\.(\d)\.layer_norm", r"image_encoder.blocks.\1.norm"),
    (r"vision_encoder\.layers", "image_encoder.blocks"),
    (r"vision_encoder\.neck\.conv1", "image_encoder.neck.0"),
    (r"vision_encoder\.neck\.layer_norm1", "image_encoder.neck.1"),
    (r"vision_encoder\.neck\.conv2", "image_encoder.neck.2"),
    (r"vision_encoder\.neck\.layer_norm2", "image_encoder.neck.3"),
    (r"vision_encoder\.patch_embed\.projection", "image_encoder.patch_embed.proj"),
    (r"vision_encoder", "image_encoder"),
    (
        r"prompt_encoder\.shared_embedding\.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"mask_embed\.conv1", "mask_downscaling.0"),
    (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
    (r"mask_embed\.conv2", "mask_downscaling.3"),
    (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
    (r"mask_embed\.conv3", "mask_downscaling.6"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(iou_prediction_head|mlps\.\d)\.layers\.0", r"\1.layers.1"),
    (r"(iou_prediction_head|mlps\.\d)\.proj_in", r"\1.layers.0"),
    (r"(iou_prediction_head|mlps\.\d)\.proj_out", r"\1.layers.2"),
    (r"layer_norm", "norm"),
)


def save_small_sam_med2d(folder: Path) -> Path:
    """SAM-Med2D's own file, with a narrow encoder."""
    torch.manual_seed(6)
    model = AdaptedSam(small_sam_config(SMALL))
    shake(model)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("shared_image_embedding."):
            continue
        for pattern, replacement in _TO_AUTHORS:
            name = re.sub(pattern, replacement, name)
        tensors[name] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": tensors}, folder / SAM_MED2D_FILE)
    return folder / SAM_MED2D_FILE


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
