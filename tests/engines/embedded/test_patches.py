"""Pictures for the small Qwen: the numbers and positions of transformers, without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from medreasoner_trainer.training.tiny import small_config
from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.engines.embedded.patches import patches_of, shown_size
from napari_medreasoner.engines.embedded.rotations import (
    picture_rotations,
    text_positions,
    text_rotations,
)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([112, 224, 840]))
def test_pictures_are_shown_as_qwen_shows_them(width: int, height: int, side: int) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    area = side**2
    down, across = smart_resize(height, width, factor=28, min_pixels=area, max_pixels=area)
    assert shown_size(width, height, side) == (across, down)


def test_a_strip_is_refused() -> None:
    with pytest.raises(ImageError, match="elongated"):
        shown_size(3000, 10, 224)


def test_patches_are_those_of_the_processor() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (84, 140, 3)).astype(np.uint8)
    theirs = Qwen2VLImageProcessor()([picture], do_resize=False, return_tensors="np")
    patches, grid = patches_of(picture)
    assert np.abs(patches - theirs["pixel_values"]).max() < 1e-5
    assert theirs["image_grid_thw"].tolist() == [[1, *grid]]


def test_rotations_are_those_of_the_model() -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_position_ids

    ids = {"<|image_pad|>": 3, "<|video_pad|>": 4, "<|vision_start|>": 5, "<|vision_end|>": 6}
    ids |= {"<|vision_pad|>": 7, "<|endoftext|>": 0, "<|im_end|>": 1}
    model = Qwen2_5_VLForConditionalGeneration(small_config(64, 1, 40, ids, 1)).model
    grid = (6, 10)
    thw = torch.tensor([[1, *grid]])
    theirs = model.visual.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(thw, 2))
    for ours, their in zip(picture_rotations(grid, 32), theirs, strict=True):
        assert np.abs(ours - their.numpy()).max() < 1e-5
    tokens = torch.tensor([[8] * 4 + [3] * 15 + [9] * 5])
    where, _ = model.get_rope_index(
        tokens, mm_token_type_ids=(tokens == 3).int(), image_grid_thw=thw
    )
    positions = text_positions(4, grid, 5)
    assert (where[:, 0].numpy() == positions).all()
    theirs = model.language_model.rotary_emb(torch.zeros(1), where)
    for ours, their in zip(text_rotations(positions, 32, 1e6, (4, 6, 6)), theirs, strict=True):
        assert np.abs(ours - their[0].numpy()).max() < 1e-5
