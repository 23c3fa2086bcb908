"""GRPO on CUDA in bfloat16 with a larger model; `make test-gpu` names this file."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import pytest
import torch

from medreasoner_trainer.training.tiny import make_tiny
from tests.trainer.training.runs import lines_of, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

LARGER = (
    "model.device=cuda",
    "data.side=448",
    "batch.prompts=4",
    "batch.generations=8",
    "batch.per_device=8",
    "rollout.max_new_tokens=64",
    "optimiser.max_steps=3",
    "loss.beta=0.01",
)


@pytest.mark.parametrize("adapters", [(), ("lora.rank=8", "lora.alpha=16")], ids=["full", "lora"])
def test_three_steps_on_cuda(data: Path, tmp_path: Path, adapters: tuple[str, ...]) -> None:
    make_tiny(tmp_path / "model", 30_000_000, layers=8)
    ending = train(tmp_path / "model", data, tmp_path / "run", *LARGER, *adapters)
    assert ending.step == 3
    logged = [line for line in lines_of(tmp_path / "run" / "log.jsonl") if "loss" in line]
    assert all(isfinite(line["loss"]) and isfinite(line["kl"]) for line in logged)
