"""What the benchmarks share that train a tiny model from nothing on the CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from medreasoner_trainer.data import Record

__all__ = ["COLD_START", "SHORT", "mini_or_end", "with_short_trace"]

SHORT: Final = (
    "data.side=112",
    "evaluation.batch=66",
    "evaluation.max_new_tokens=80",
    "rollout.max_new_tokens=80",
    "log.every=25",
)
"""Small pictures and short answers."""

COLD_START: Final = (
    "method=sft",
    "batch.generations=1",
    "batch.prompts=16",
    "batch.per_device=16",
    "optimiser.learning_rate=1e-3",
    "optimiser.schedule=cosine",
    "optimiser.warmup_steps=30",
)
"""SFT of random weights."""


def mini_or_end(name: str) -> Path:
    """Folder of UMRG-mini; the process ends with a sentence where it is not at hand."""
    shared = os.environ.get("MEDREASONER_SHARED")
    if not shared:
        print(f"{name} is skipped: MEDREASONER_SHARED names no folder with data/umrg_mini.")
        sys.exit()
    return Path(shared) / "data" / "umrg_mini"


def with_short_trace(record: Record) -> Record:
    """Say where the target lies and no more: long traces take a small model's time."""
    width, height = record.image_size
    box = record.box
    across = ("left", "middle", "right")[(box.x1 + box.x2) * 3 // (2 * width + 1)]
    down = ("upper", "middle", "lower")[(box.y1 + box.y2) * 3 // (2 * height + 1)]
    return record.model_copy(update={"trace": f"It lies in the {down} {across}."})
