"""A model of Qwen2.5-VL's architecture small enough to be trained on a laptop.

It knows nothing; it is for tests, for trying a recipe, and for learning curves on the CPU.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from medreasoner_trainer.training.tokens import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    END_OF_TURN,
    small_tokenizer,
)
from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.imaging.writers.atomic import make_folder

__all__ = ["make_tiny", "parameter_count", "small_config", "small_processor", "token_ids"]

_HEAD: Final = 32
"""Width of an attention head. Half of it is shared out to time, rows and columns."""

_SECTIONS: Final = (4, 6, 6)
_PATCH: Final = 14
_MERGE: Final = 2
_WINDOW: Final = 112
_SIDE: Final = _PATCH * _MERGE
_MOST_TOKENS: Final = 1600
_CONTEXT: Final = 4096
_WIDEST: Final = 1024
_UNITS: Final = {"": 1, "k": 1_000, "m": 1_000_000}


def parameter_count(text: str) -> int:
    """Read a size such as "3M" or "500k".

    Raises
    ------
    SettingsError
        When it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", text.strip().lower())
    if not found:
        raise SettingsError(f'"{text}" is not a number of parameters; write one such as 3M.')
    return round(float(found[1]) * _UNITS[found[2]])


def make_tiny(folder: Path, parameters: int = 3_000_000, layers: int = 4, seed: int = 0) -> int:
    """Write a model with random weights, its tokenizer and processor.

    Parameters
    ----------
    folder : Path
        Made where it does not exist; `AutoProcessor` and `AutoModelForImageTextToText` read it.
    parameters : int
        Wanted; the width that comes nearest is taken.
    layers : int
        Of the language model and of the vision tower each.
    seed : int
        Of the weights.

    Returns
    -------
    int
        Parameters that it has.

    Raises
    ------
    ExportError
        When the folder cannot be made.
    """
    make_folder(folder)
    tokenizer = small_tokenizer()
    ids = token_ids(tokenizer)
    config = _nearest(parameters, layers, len(tokenizer), ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [ids[END_OF_TURN], ids[END_OF_TEXT]]
    model.generation_config.pad_token_id = ids[END_OF_TEXT]
    model.save_pretrained(folder)
    small_processor(tokenizer).save_pretrained(folder)
    return _size(model)


def token_ids(tokenizer: Any) -> dict[str, int]:
    """Special tokens of a tokenizer with their numbers."""
    names: list[str] = tokenizer.all_special_tokens
    ids: dict[str, int] = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    ids.update(tokenizer.get_added_vocab())
    return ids


def small_processor(tokenizer: Any) -> Qwen2_5_VLProcessor:
    """A processor around a tokenizer, for pictures of 1 to 1,600 tokens."""
    pixels = {"min_pixels": _SIDE**2, "max_pixels": _MOST_TOKENS * _SIDE**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def _size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _nearest(parameters: int, layers: int, words: int, ids: dict[str, int]) -> Qwen2_5_VLConfig:
    """The configuration whose size comes nearest, without filling a weight."""
    best, gap = small_config(2 * _HEAD, layers, words, ids), float("inf")
    for width in range(2 * _HEAD, _WIDEST + 1, _HEAD):
        config = small_config(width, layers, words, ids)
        with torch.device("meta"):
            distance = abs(_size(Qwen2_5_VLForConditionalGeneration(config)) - parameters)
        if distance > gap:
            break
        best, gap = config, distance
    return best


def small_config(
    width: int, layers: int, words: int, ids: dict[str, int], seeing: int | None = None
) -> Qwen2_5_VLConfig:
    """Configuration of a small model.

    Parameters
    ----------
    width : int
        Of language model and vision tower, a multiple of 32.
    layers : int
        Of the language model.
    words : int
        Size of the vocabulary.
    ids : dict of str to int
        Its special tokens.
    seeing : int or None
        Layers of the vision tower, each of which sees the whole picture. None: as many as the
        language model has, every other one bound to windows as in the large models.
    """
    heads = width // _HEAD
    whole = list(range(1, layers, 2)) or [0] if seeing is None else list(range(seeing))
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(_SECTIONS)}
    text = {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads if heads % 2 else heads // 2,
        "max_position_embeddings": _CONTEXT,
        "rope_parameters": rotary,
        "bos_token_id": ids[END_OF_TEXT],
        "eos_token_id": ids[END_OF_TURN],
        "pad_token_id": ids[END_OF_TEXT],
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": layers if seeing is None else seeing,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": heads,
        "out_hidden_size": width,
        "patch_size": _PATCH,
        "spatial_merge_size": _MERGE,
        "temporal_patch_size": 2,
        "window_size": _WINDOW,
        "fullatt_block_indexes": whole,
        "tokens_per_second": 2,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        vision_token_id=ids["<|vision_pad|>"],
        tie_word_embeddings=True,
    )
