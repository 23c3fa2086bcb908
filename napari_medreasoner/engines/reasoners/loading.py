"""A vision-language model read from a folder, without network and without code of its own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.utils import is_flash_attn_2_available

from napari_medreasoner.core.errors import (
    MemoryShortageError,
    MissingEngineError,
    SettingsError,
    WeightsError,
)
from napari_medreasoner.engines.device import device_of, dtype_of
from napari_medreasoner.engines.models.weights import check_folder
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["Loaded", "load_model"]

_VISION_TOKENS: Final = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
    "image_token_index",
    "boi_token_index",
    "eoi_token_index",
)
"""What configurations call the tokens that stand for pictures."""

_TRIAL: Final = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]},
]

_SAID: Final = 300
"""Characters of a library's own message that are passed on."""


class Loaded(NamedTuple):
    """A model ready to write, and the processor that makes its inputs."""

    model: Any
    processor: Any
    device: torch.device


def load_model(folder: Path, family: str, options: EngineOptions) -> Loaded:
    """Read model and processor.

    Parameters
    ----------
    folder : Path
        In transformers' layout, with safetensors.
    family : str
        The `model_type` that its configuration must have.
    options : EngineOptions
        Device, type of the weights, quantisation, longest answer.

    Raises
    ------
    WeightsError
        When files are missing, damaged, incomplete, of another kind, pickled, or need code.
    SettingsError
        When the device is not there, or cannot do what is asked of it.
    MissingEngineError
        When quantisation is asked for and bitsandbytes is not installed.
    MemoryShortageError
        When the weights do not fit.
    """
    if (folder / "adapter_config.json").exists():
        # transformers would add it, or leave it out, as PEFT happens to be installed or not.
        raise WeightsError(
            f"{folder} holds an adapter; merge it into its model first, as medreasoner-train "
            "export does."
        )
    check_folder(folder, (family,))
    device = device_of(options)
    dtype = dtype_of(options, device)
    settings = {
        "dtype": dtype,
        "device_map": {"": device},
        "attn_implementation": _attention(device, dtype),
        "quantization_config": _quantisation(options, device, dtype),
    }
    processor = _processor(folder)
    model = _weights(folder, settings)
    model.generation_config = _greedy(model, processor, options.max_new_tokens)
    return Loaded(model, processor, device)


def _processor(folder: Path) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises anything when a file is damaged
        raise WeightsError(
            f"The processor in {folder} cannot be loaded ({_said(error)}); get its files again."
        ) from error
    if not hasattr(processor, "image_processor"):
        raise WeightsError(f"{folder} holds no image processor's configuration; get it again.")
    processor.tokenizer.padding_side = "left"
    # A model trained further may have it with the tokenizer alone.
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise WeightsError(f"{folder} holds no chat template; take an instruction-tuned model.")
    if processor.image_token not in processor.apply_chat_template(_TRIAL):
        raise WeightsError(
            f"The chat template in {folder} leaves pictures out; take that of the model it was "
            "made from."
        )
    return processor


def _weights(folder: Path, settings: dict[str, Any]) -> Any:
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **settings,
        )
    except torch.OutOfMemoryError as error:
        raise MemoryShortageError(
            f"The weights in {folder} do not fit into the device's memory; free some, load them "
            "in 4 bits, or choose a smaller model."
        ) from error
    except Exception as error:  # as above
        raise WeightsError(
            f"The weights in {folder} cannot be loaded ({_said(error)}); get the files again."
        ) from error
    # transformers fills these with random numbers and warns.
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise WeightsError(
            f"The weights in {folder} lack {len(lacking)} tensors of the model or have them in "
            f"another shape, {lacking[0]} for one; get the files again."
        )
    return model.eval()


def _said(error: Exception) -> str:
    """The first sentence of a library's message, as the second one is for programmers."""
    text = " ".join(str(error).split()).partition(". ")[0]
    return f"{type(error).__name__}: {text[:_SAID]}"


def _attention(device: torch.device, dtype: torch.dtype) -> str:
    """FlashAttention where it is installed and can work, else torch's own."""
    flash = device.type == "cuda" and dtype != torch.float32 and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def _quantisation(
    options: EngineOptions, device: torch.device, dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    if options.quantisation is None:
        return None
    if device.type != "cuda":
        raise SettingsError(
            f"Weights in {options.quantisation[0]} bits need a CUDA device, and this is "
            f'"{device}"; leave the quantisation out.'
        )
    if find_spec("bitsandbytes") is None:
        raise MissingEngineError(
            f"Weights in {options.quantisation[0]} bits need the package bitsandbytes; install "
            "it with: pip install 'napari-medreasoner[quantised]'."
        )
    if options.quantisation == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _greedy(model: Any, processor: Any, max_new_tokens: int) -> GenerationConfig:
    """The likeliest token each time, with no penalty: coordinates repeat digits.

    Tokens that stand for a picture are never written: the model would look for the picture.
    """
    own, tokens = model.generation_config, processor.tokenizer
    banned = {getattr(model.config, name, None) for name in _VISION_TOKENS}
    banned |= set(processor.image_token_ids)
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        suppress_tokens=sorted(token for token in banned if isinstance(token, int)),
        bos_token_id=own.bos_token_id,
        # A model trained further may name one end and its chat template use another.
        eos_token_id=sorted({*ends, tokens.eos_token_id} - {None}),
        pad_token_id=tokens.pad_token_id,
    )
