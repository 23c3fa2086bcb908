"""What a user chooses of an evaluation. Imports nothing heavy."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["PROMPT_MODES", "TRUE_PROMPTS", "PromptMode"]

TRUE_PROMPTS: Final = "true-prompts"
"""In place of a reasoner: the records' own boxes and points."""

PromptMode = Literal["points", "box", "both"]
"""What of the answer the segmenter is given."""

PROMPT_MODES: Final[tuple[PromptMode, ...]] = ("points", "box", "both")
