"""Where an engine computes, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["arithmetic", "device_of", "dtype_of"]


def device_of(options: EngineOptions) -> torch.device:
    """The device that was asked for; "auto" is the first CUDA device, or the CPU without one.

    Raises
    ------
    SettingsError
        When it is not a CPU or CUDA device, or this machine has no such CUDA device.
    """
    if options.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise _unknown(options.device) from error
    if device.type not in ("cpu", "cuda"):
        raise _unknown(options.device)
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        raise SettingsError(
            f'The device "{options.device}" was asked for, but torch {torch.__version__} finds '
            f"{there or 'no'} CUDA device{'s' if there > 1 else ''} here; use --device cpu, or "
            "install the driver and a torch built for CUDA."
        )
    return device


def _unknown(name: str) -> SettingsError:
    return SettingsError(f'"{name}" is not a device; use auto, cpu, cuda, or cuda:1 and so on.')


def dtype_of(options: EngineOptions, device: torch.device) -> torch.dtype:
    """The precision that was asked for; "auto" is bfloat16 on CUDA and float32 on the CPU."""
    if options.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, options.dtype)
    return dtype


@contextmanager
def arithmetic(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Compute without gradients, in this precision, with weights that stay in float32.

    Small models are run so: their weights cost little memory, and positions, which lose a pixel
    or two in 16 bits, keep their own precision.
    """
    with torch.inference_mode(), torch.autocast(device.type, dtype, dtype != torch.float32):
        yield
