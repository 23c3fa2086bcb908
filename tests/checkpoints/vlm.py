"""Tiny vision-language models with random weights, in the folders that real ones come in.

Architecture, configuration keys, control words and processor are the family's own; only the
sizes and the vocabulary are small. `MAKERS` names them by `model_type`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.checkpoints.tokens import tokenizer

QWEN_WORDS: Final = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]

_LOOP: Final = (
    "{%% for message in messages %%}<|im_start|>{{ message['role'] }}\n"
    "{%% for content in message['content'] %%}"
    "{%% if content['type'] == 'image' %%}%s{%% else %%}{{ content['text'] }}{%% endif %%}"
    "{%% endfor %%}<|im_end|>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
"""A chat template in ChatML, with what stands for a picture."""

HIDDEN: Final = 256
"""Wide enough that `teach` can tell a few hundred tokens apart."""

_TEXT: Final = {
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}

_TOWER: Final = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 56,
    "patch_size": 14,
}


def _tokens(**names: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a family's own control words, by the names its processor uses."""
    return tokenizer(
        [*QWEN_WORDS[:3], *names.values()],
        end="<|im_end|>",
        pad="<|endoftext|>",
        extra_special_tokens=names,
    )


def _save(folder: Path, model: Any, processor: Any) -> Path:
    tokens = processor.tokenizer
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _qwen(folder: Path, config: type, model: type, processor: type, vision: Any) -> Path:
    """Qwen2-VL and Qwen2.5-VL differ in their vision tower; a picture has 1 to 64 tokens."""
    tokens = tokenizer(QWEN_WORDS, end="<|im_end|>", pad="<|endoftext|>")
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    made = processor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=64 * 28 * 28),
        tokenizer=tokens,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_LOOP % image,
    )
    number = tokens.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text = {
        **_TEXT,
        "vocab_size": len(tokens),
        "rope_parameters": rope,
        "bos_token_id": number("<|endoftext|>"),
        "eos_token_id": number("<|im_end|>"),
        "pad_token_id": number("<|endoftext|>"),
        "tie_word_embeddings": False,
    }
    torch.manual_seed(0)
    settings = config(
        text_config=text,
        vision_config={"patch_size": 14, "temporal_patch_size": 2, **vision},
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    return _save(folder, model(settings), made)


def qwen2_5_vl(folder: Path) -> Path:
    """Save Qwen2.5-VL: Lingshu, MedReasoner, HuatuoGPT-Vision, VLM-R1, Seg-Zero."""
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "spatial_merge_size": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    return _qwen(
        folder, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, vision
    )


def qwen2_vl(folder: Path) -> Path:
    """Save Qwen2-VL: MedVLM-R1."""
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2}
    return _qwen(folder, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, vision)


def internvl(folder: Path) -> Path:
    """Save InternVL3 in transformers' own layout, with tiles of 56 pixels."""
    tokens = _tokens(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    made = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=4
        ),
        tokenizer=tokens,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=_LOOP % "<IMG_CONTEXT>\n",
    )
    torch.manual_seed(0)
    settings = InternVLConfig(
        text_config={
            **_TEXT,
            "model_type": "qwen2",
            "vocab_size": len(tokens),
            "tie_word_embeddings": False,
        },
        vision_config=dict(_TOWER),
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return _save(folder, InternVLForConditionalGeneration(settings), made)


def gemma3(folder: Path) -> Path:
    """Save Gemma 3: MedGemma; squares of 56 pixels, 4 tokens."""
    tokens = _tokens(
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    made = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokens,
        image_seq_length=4,
        chat_template=_LOOP % "<start_of_image>",
    )
    number = tokens.convert_tokens_to_ids
    torch.manual_seed(0)
    settings = Gemma3Config(
        text_config={
            **_TEXT,
            "vocab_size": len(tokens),
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": False,
        },
        vision_config=dict(_TOWER),
        mm_tokens_per_image=4,
        boi_token_index=number("<start_of_image>"),
        eoi_token_index=number("<end_of_image>"),
        image_token_index=number("<image_soft_token>"),
        tie_word_embeddings=False,
    )
    return _save(folder, Gemma3ForConditionalGeneration(settings), made)


def llava_next(folder: Path) -> Path:
    """Save LLaVA-NeXT: SAM4MLLM; tiles of 56 pixels."""
    tokens = _tokens(image_token="<image>")
    grid = [[56, 112], [112, 56], [112, 112]]
    made = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 56},
            crop_size={"height": 56, "width": 56},
            image_grid_pinpoints=grid,
        ),
        tokenizer=tokens,
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=_LOOP % "<image>\n",
    )
    torch.manual_seed(0)
    settings = LlavaNextConfig(
        text_config=LlamaConfig(**_TEXT, vocab_size=len(tokens)),
        vision_config=CLIPVisionConfig(**_TOWER),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
        image_seq_length=16,
    )
    return _save(folder, LlavaNextForConditionalGeneration(settings), made)


MAKERS: Final[Mapping[str, Callable[[Path], Path]]] = {
    "qwen2_5_vl": qwen2_5_vl,
    "qwen2_vl": qwen2_vl,
    "internvl": internvl,
    "gemma3": gemma3,
    "llava_next": llava_next,
}
