"""The model that is trained: loaded, partly frozen, with adapters where wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from medreasoner_trainer.training.config import Lora, Model, TrainConfig
from medreasoner_trainer.training.examples import Examples
from medreasoner_trainer.training.preprocessing import keep_preprocessed
from napari_medreasoner.core.errors import QuestionError, SettingsError, WeightsError

__all__ = [
    "banned_tokens",
    "check_lengths",
    "load_policy",
    "load_processor",
    "lora_settings",
    "on_cuda",
]

_FAMILIES: Final = ("qwen2_5_vl",)
_LINEAR: Final = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
_VISION_TOKENS: Final = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


def on_cuda(model: Model) -> bool:
    """Whether a run takes CUDA.

    Raises
    ------
    SettingsError
        When it is asked for and there is none.
    """
    found = torch.cuda.is_available()
    if model.device == "cuda" and not found:
        raise SettingsError(
            "There is no CUDA device on this machine; train there, or a small model on the CPU "
            "with --set model.device=cpu."
        )
    return found and model.device != "cpu"


def load_processor(model: Model, sides: Sequence[Examples]) -> Any:
    """The model's processor, padding on the left, with preprocessed pictures kept.

    Raises
    ------
    WeightsError
        When it cannot be loaded or the model is of another family.
    SettingsError
        When it would resize the pictures once more.
    """
    _check_family(model.path)
    try:
        processor = AutoProcessor.from_pretrained(model.path, padding_side="left")
    except (OSError, ValueError, ImportError) as error:
        raise WeightsError(
            f"The processor in {model.path} cannot be loaded ({type(error).__name__}); the folder "
            "must hold tokenizer and preprocessor_config.json beside the weights."
        ) from error
    _keep_size(processor.image_processor, sides)
    _require_identity(processor.image_processor.size, sides)
    processor.tokenizer.padding_side = "left"
    keep_preprocessed(processor.image_processor)
    return processor


def _keep_size(images: Any, sides: Sequence[Examples]) -> None:
    """Let a processor that resizes to the very area of training leave pictures of it alone.

    `smart_resize` to one area does not keep what it returned: each side was rounded, to half or
    twice its length where it is one cell long.
    """
    low, high = images.size["shortest_edge"], images.size["longest_edge"]
    if all(low == high == examples.side**2 for examples in sides):
        images.size = {"shortest_edge": low // 4, "longest_edge": 4 * high}


def _require_identity(size: Any, sides: Sequence[Examples]) -> None:
    """Refuse pictures that the processor would resize once more, moving every coordinate."""
    low, high = size["shortest_edge"], size["longest_edge"]
    for examples in sides:
        for index in range(len(examples)):
            width, height = examples.scale(index).shown
            if not low <= width * height <= high:
                raise SettingsError(
                    f"The model's processor takes pictures of {low} to {high} pixels, but with "
                    f"data.side {examples.side} there is one of {width} x {height}, which it would "
                    "resize once more; choose another data.side."
                )


def _check_family(path: str) -> None:
    config = Path(path) / "config.json"
    if not Path(path).is_dir():
        return  # a repository of the cache; transformers says what is wrong with it
    try:
        family = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} holds no readable config.json and so no model.") from error
    if family not in _FAMILIES:
        raise WeightsError(
            f'{path} holds a model of the family "{family}"; training knows: '
            f"{', '.join(_FAMILIES)}."
        )


def load_policy(config: TrainConfig) -> Any:
    """Load the weights and freeze what is not to be trained.

    Raises
    ------
    WeightsError
        When they cannot be loaded.
    SettingsError
        When CUDA is asked for and there is none.
    """
    model, cuda = config.model, on_cuda(config.model)
    options: dict[str, Any] = {
        "dtype": _dtype(config, cuda),
        "attn_implementation": model.attention,
    }
    if config.lora and config.lora.quantisation:
        if not cuda:
            raise SettingsError("Weights in four bits need CUDA; unset lora.quantisation.")
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=True,
        )
    _check_family(model.path)
    try:
        policy = AutoModelForImageTextToText.from_pretrained(model.path, **options)
    except (OSError, ValueError, ImportError) as error:
        raise WeightsError(
            f"The weights in {model.path} cannot be loaded ({type(error).__name__}); check the "
            "path, or fetch the model first with: medreasoner models pull"
        ) from error
    _freeze(policy, config)
    return policy


def _dtype(config: TrainConfig, cuda: bool) -> torch.dtype:
    if config.model.dtype != "auto":
        return torch.bfloat16 if config.model.dtype == "bfloat16" else torch.float32
    return torch.bfloat16 if cuda and config.lora else torch.float32


def _freeze(policy: Any, config: TrainConfig) -> None:
    """Under LoRA everything but the adapters is frozen by PEFT."""
    if config.lora or config.model.freeze == "none":
        return
    visual = policy.model.visual
    visual.requires_grad_(False)
    if config.model.freeze == "vision":
        visual.merger.requires_grad_(True)


def lora_settings(lora: Lora | None) -> LoraConfig | None:
    """Adapters on every linear layer of the language model and on none of the visual part."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_LINEAR,
        task_type="CAUSAL_LM",
    )


def banned_tokens(processor: Any) -> list[int]:
    """Tokens that stand for pictures: a completion with one would break the next forward pass."""
    found: list[int] = processor.tokenizer.convert_tokens_to_ids(list(_VISION_TOKENS))
    return [token for token in found if token is not None]


def check_lengths(processor: Any, sides: Sequence[Examples], max_prompt: int) -> int:
    """Find the longest prompt, in tokens, its picture included.

    Raises
    ------
    QuestionError
        When one is longer than `max_prompt`.
    """
    longest = 0
    for examples in sides:
        for index in range(len(examples)):
            text = processor.apply_chat_template(
                examples.messages(index), add_generation_prompt=True, tokenize=False
            )
            words = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
            tokens = words + examples.scale(index).tokens + 2
            if tokens > max_prompt:
                raise QuestionError(
                    f'The prompt of the record "{examples.records[index].id}" has {tokens} tokens '
                    f"with its picture; raise rollout.max_prompt above {max_prompt}, lower "
                    "data.side or shorten the question."
                )
            longest = max(longest, tokens)
    return longest
