"""Where engines that load weights compute, and in which numbers."""

from __future__ import annotations

import torch

from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["device_of", "dtype_of"]


def device_of(options: EngineOptions) -> torch.device:
    """The device chosen; "auto" is CUDA where there is one, else the CPU.

    Raises
    ------
    SettingsError
        When torch knows no such device, or this machine has none.
    """
    has_cuda = torch.cuda.is_available()
    if options.device == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise SettingsError(
            f'There is no device "{options.device}"; choose auto, cpu, cuda or cuda:N.'
        ) from error
    count = torch.cuda.device_count() if has_cuda else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SettingsError(
            f'The device "{options.device}" is not in this machine, which has {count} CUDA '
            "devices; choose another, or cpu."
        )
    return device


def dtype_of(options: EngineOptions, device: torch.device) -> torch.dtype:
    """The type of the weights in memory; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if options.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {
        "float32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }[options.dtype]
