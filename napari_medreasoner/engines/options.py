"""What a user may set about engines that load weights or call other servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["MANAGED", "EngineOptions"]

MANAGED: Final = "vllm"
"""The endpoint that stands for a server of our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Settings of the engines of one process; engines ignore what does not concern them.

    Attributes
    ----------
    device : str
        "auto" (CUDA where there is one), or a torch device such as "cpu" or "cuda:1".
    dtype : str
        Of a reasoner's weights in memory and of a segmenter's arithmetic (its weights stay in
        float32); "auto" is bfloat16 on CUDA and float32 on the CPU.
    quantisation : str or None
        "4bit" or "8bit": weights of the reasoner quantised while loading; CUDA only.
    models : Path or None
        Folder with one folder per model; None takes `napari_medreasoner.engines.models`'s
        default.
    endpoint : str
        Base URL of an OpenAI-compatible server that runs the reasoner, as in
        "http://127.0.0.1:8000/v1"; `MANAGED` has a `vllm serve` started for it; empty runs it
        in this process.
    max_new_tokens : int
        Where an answer is cut off.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    quantisation: Literal["4bit", "8bit"] | None = None
    models: Path | None = None
    endpoint: str = ""
    max_new_tokens: int = 2048
