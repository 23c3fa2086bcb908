"""SAM 2 of its authors' layout as a model of transformers.

Checkpoints of SAM 2 and of MedSAM2 hold `{"model": tensors}` under the names of the package
`sam2`; transformers has the same network under other names. Here each name has exactly one
counterpart, and what has none is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig

from napari_medreasoner.engines.segmenters.common import authors_tensors, load_checked

__all__ = ["Tracker", "configuration", "load_authors_file", "renamed"]

_RENAMES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"patch_embed\.proj\.", "patch_embed.projection."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (
            r"pe_layer\.positional_encoding_gaussian_matrix",
            "shared_embedding.positional_embedding",
        ),
        (r"mask_downscaling\.0\.", "mask_embed.conv1."),
        (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
        (r"mask_downscaling\.3\.", "mask_embed.conv2."),
        (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
        (r"mask_downscaling\.6\.", "mask_embed.conv3."),
        (r"output_upscaling\.0\.", "upscale_conv1."),
        (r"output_upscaling\.1\.", "upscale_layer_norm."),
        (r"output_upscaling\.3\.", "upscale_conv2."),
        (r"^obj_ptr_proj\.", "object_pointer_proj."),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
        (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
        (r"\.gamma$", ".scale"),
        (r"\.dwconv\.", ".depthwise_conv."),
        (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
        (
            r"^memory_encoder\.mask_downsampler\.encoder\.12\.",
            "memory_encoder.mask_downsampler.final_conv.",
        ),
        (r"\.out_proj\.", ".o_proj."),
        (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
        (r"\.norm(\d?)\.", r".layer_norm\1."),
    )
)

_DOWNSAMPLER: Final = re.compile(r"^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.(.*)$")
"""Convolution, norm and activation by turns; transformers has them in layers of two."""

_PERCEPTRONS: Final = (
    (re.compile(r"(^|\.)(mlp)\.layers\.(\d)\."), 2),
    (re.compile(r"(^|\.)(iou_prediction_head)\.layers\.(\d)\."), 3),
    (re.compile(r"(^|\.)(pred_obj_score_head)\.layers\.(\d)\."), 3),
    (re.compile(r"(^|\.)(output_hypernetworks_mlps\.\d)\.layers\.(\d)\."), 3),
    (re.compile(r"(^|\.)(object_pointer_proj)\.layers\.(\d)\."), 3),
)
"""Perceptrons and how many layers they have: transformers names the first and the last."""

_CORNERS: Final = tuple(f"sam_prompt_encoder.point_embeddings.{kind}.weight" for kind in range(4))
"""Embeddings of a no, a yes, and the two corners of a box; one table in transformers."""


class Tracker(Sam2VideoModel):  # type: ignore[misc]
    """transformers' video model, where it differs from `sam2` made to do as that does.

    For a mask that is taken as it is, transformers makes the object pointer of the best of three
    candidate masks and remembers the mask itself; `sam2` makes the pointer of the single
    candidate and remembers the mask as it comes back from a quarter of the square's side.

    Attributes
    ----------
    overlap : float
        Predicted overlap (IoU) of the last decoded mask, which transformers does not return.
    """

    overlap: float = 1.0

    def _single_frame_forward(self, *args: Any, multimask_output: bool = False, **more: Any) -> Any:
        made = super()._single_frame_forward(*args, multimask_output=multimask_output, **more)
        self.overlap = float(made.iou_scores.max())
        return made

    def _use_mask_as_output(self, *args: Any, **more: Any) -> Any:
        made = super()._use_mask_as_output(*args, **more)
        made.high_res_masks = functional.interpolate(
            made.pred_masks.float(), made.high_res_masks.shape[-2:], mode="bilinear"
        )
        return made


def configuration(side: int) -> Sam2VideoConfig:
    """SAM 2.1 tiny (Hiera-T), as its authors and those of MedSAM2 trained it, for squares.

    Parameters
    ----------
    side : int
        Of the square a picture is resized to, in pixels; a multiple of 32.
    """
    grids = [[side // 4] * 2, [side // 8] * 2, [side // 16] * 2]
    return Sam2VideoConfig(
        image_size=side,
        vision_config={
            "backbone_config": {"model_type": "sam2_hiera_det_model", "image_size": [side, side]},
            "backbone_feature_sizes": grids,
        },
        prompt_encoder_config={"image_size": side},
        # As sam2 builds it with apply_postprocessing, its default.
        mask_decoder_config=Sam2VideoMaskDecoderConfig(dynamic_multimask_via_stability=True),
        memory_attention_rope_feat_sizes=grids[-1],
    )


def renamed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the authors' tensors the names of transformers; unknown names stay as they are."""
    result = {_renamed(name): tensor for name, tensor in tensors.items() if name not in _CORNERS}
    corners = [tensors[name] for name in _CORNERS if name in tensors]
    if len(corners) == len(_CORNERS):
        result["prompt_encoder.point_embed.weight"] = torch.cat(corners)
    positions = result.get("prompt_encoder.shared_embedding.positional_embedding")
    if positions is not None:
        result["shared_image_embedding.positional_embedding"] = positions.clone()
    return result


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    if found := _DOWNSAMPLER.match(name):
        step = int(found[1])
        part = "layer_norm" if step % 3 else "conv"
        name = f"memory_encoder.mask_downsampler.layers.{step // 3}.{part}.{found[2]}"
    for pattern, layers in _PERCEPTRONS:
        if found := pattern.search(name):
            step = int(found[3])
            inner = (
                "proj_out" if step == layers - 1 else f"layers.{step - 1}" if step else "proj_in"
            )
            name = f"{name[: found.start()]}{found[1]}{found[2]}.{inner}.{name[found.end() :]}"
    return name


def load_authors_file(path: Path, side: int) -> Tracker:
    """Load a checkpoint of the authors' layout into transformers' model.

    Raises
    ------
    WeightsError
        When it cannot be read safely, or is another network.
    """
    tensors = renamed(authors_tensors(path))
    model: Tracker = load_checked(Tracker, path, config=configuration(side), tensors=tensors)
    return model
