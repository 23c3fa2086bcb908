"""Options of commands that run engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["Device", "Dtype", "Endpoint", "MaxNewTokens", "Models", "Quantise"]

Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1".')]
Dtype = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    typer.Option(help="Of the weights in memory; auto: bfloat16 on CUDA, float32 on the CPU."),
]
Quantise = Annotated[
    Literal["4bit", "8bit"] | None, typer.Option(help="Load the reasoner quantised (CUDA).")
]
Models = Annotated[Path | None, typer.Option(help="Folder of all models; else MEDREASONER_MODELS.")]
Endpoint = Annotated[
    str,
    typer.Option(
        help="OpenAI-compatible server that runs the reasoner, http://127.0.0.1:8000/v1; or "
        '"vllm" to have `vllm serve` started here.'
    ),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Where an answer is cut off.")]
