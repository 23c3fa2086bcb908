"""The engines that are taken where none is named: they ship with the package."""

from __future__ import annotations

from typing import Final

__all__ = ["ASM", "CRM"]

CRM: Final = "small-qwen"
"""The reasoner."""

ASM: Final = "unet"
"""The segmenter."""
