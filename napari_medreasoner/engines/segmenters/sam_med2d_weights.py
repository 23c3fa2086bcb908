"""SAM-Med2D's network: SAM of transformers with an adapter beside the perceptron of each layer.

After Cheng et al., "SAM-Med2D", arXiv 2308.16184, and the layout of their checkpoint
`sam-med2d_b.pth`. The rest of the network is SAM's own, for squares of 256 pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import nn
from transformers import SamConfig, SamModel

from napari_medreasoner.core.errors import WeightsError
from napari_medreasoner.engines.segmenters.common import authors_tensors, load_checked

__all__ = ["AdaptedSam", "load_authors_file", "renamed"]

_BLOCKS: Final = "image_encoder.blocks."

_SQUEEZE: Final = 4
"""How much narrower the middle of the channel weighting is."""

_RENAMES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^image_encoder\.blocks\.(\d+)\.mlp\.", r"vision_encoder.layers.\1.mlp.perceptron."),
        (r"^image_encoder\.blocks\.(\d+)\.Adapter\.", r"vision_encoder.layers.\1.mlp.adapter."),
        (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
        (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
        (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
        (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
        (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
        (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
        (r"^image_encoder\.", "vision_encoder."),
        (
            r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
            "prompt_encoder.shared_embedding.positional_embedding",
        ),
        (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (
            r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0\.",
            r".\1.proj_in.",
        ),
        (
            r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2\.",
            r".\1.proj_out.",
        ),
        (
            r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1\.",
            r".\1.layers.0.",
        ),
        (r"^(vision_encoder\.layers\.\d+|mask_decoder\..*)\.norm", r"\1.layer_norm"),
    )
)


class Adapter(nn.Module):
    """Weighs channels by the whole picture, then adds what a coarser grid shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.channel = nn.Sequential(
            nn.Linear(width, width // _SQUEEZE, bias=False),
            nn.ReLU(),
            nn.Linear(width // _SQUEEZE, width, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Adapt features of shape (batch, row, column, channel)."""
        grid = hidden.permute(0, 3, 1, 2)
        weighed = grid * self.channel(grid.mean((2, 3)))[..., None, None]
        adapted: torch.Tensor = self.norm((grid + self.spatial(weighed)).permute(0, 2, 3, 1))
        return adapted


class _Beside(nn.Module):
    """A layer's perceptron and its adapter, on the same features."""

    def __init__(self, perceptron: nn.Module, width: int) -> None:
        super().__init__()
        self.perceptron = perceptron
        self.adapter = Adapter(width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        both: torch.Tensor = self.perceptron(hidden) + self.adapter(hidden)
        return both


class AdaptedSam(SamModel):  # type: ignore[misc]
    """SAM with adapters."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config)
        for layer in self.vision_encoder.layers:
            layer.mlp = _Beside(layer.mlp, config.vision_config.hidden_size)


def configuration(tensors: Mapping[str, torch.Tensor]) -> SamConfig:
    """The configuration of a checkpoint, by the shapes of its tensors in the authors' layout.

    Raises
    ------
    KeyError
        When a tensor that tells is not there.
    """
    depth = len({name.split(".")[2] for name in tensors if name.startswith(_BLOCKS)})
    width, _, patch, _ = tensors["image_encoder.patch_embed.proj.weight"].shape
    grid = tensors["image_encoder.pos_embed"].shape[1]
    sides = [tensors[f"{_BLOCKS}{layer}.attn.rel_pos_h"].shape for layer in range(depth)]
    globally = [layer for layer, (span, _) in enumerate(sides) if span == 2 * grid - 1]
    windows = {(span + 1) // 2 for layer, (span, _) in enumerate(sides) if layer not in globally}
    return SamConfig(
        vision_config={
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": width // sides[0][1],
            "image_size": grid * patch,
            "patch_size": patch,
            "window_size": min(windows, default=0),
            "global_attn_indexes": globally,
        },
        prompt_encoder_config={"image_size": grid * patch, "patch_size": patch},
    )


def renamed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the authors' tensors the names of `AdaptedSam`; unknown names stay as they are."""
    result = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        result[name] = tensor
    positions = result.get("prompt_encoder.shared_embedding.positional_embedding")
    if positions is not None:
        result["shared_image_embedding.positional_embedding"] = positions
    return result


def load_authors_file(path: Path) -> AdaptedSam:
    """Load a checkpoint of the authors' layout, of any width, depth and square.

    Raises
    ------
    WeightsError
        When it cannot be read safely, or is another network.
    """
    tensors = authors_tensors(path)
    try:
        config = configuration(tensors)
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path} is not SAM-Med2D: the image encoder of its authors' layout is not in it; "
            "check which model the file is."
        ) from error
    model: AdaptedSam = load_checked(AdaptedSam, path, config=config, tensors=renamed(tensors))
    return model
