"""What training costs on top of bare TRL, and what keeping preprocessed pictures saves.

Both trainers take the same steps with the same model, data and seeds, in turns, so that a busy
machine slows both; CPU seconds are compared, and losses must agree.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, PrinterCallback, TrainerCallback
from trl import GRPOTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))

from medreasoner_trainer.training.arguments import grpo_arguments
from medreasoner_trainer.training.loading import load_config
from medreasoner_trainer.training.policy import banned_tokens, load_policy
from medreasoner_trainer.training.preprocessing import keep_preprocessed
from medreasoner_trainer.training.run import Run
from medreasoner_trainer.training.scoring import group_rewards
from medreasoner_trainer.training.tiny import make_tiny
from tests.trainer.training.runs import write_data


class Clock(TrainerCallback):  # type: ignore[misc]
    """CPU seconds of each step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._start = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self._start = process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.steps.append(process_time() - self._start)


def bare(run: Run) -> Any:
    """TRL's own trainer with the same arguments, and a processor that keeps nothing."""
    config = run.config
    processor = AutoProcessor.from_pretrained(config.model.path, padding_side="left")
    banned = banned_tokens(processor)
    return GRPOTrainer(
        model=load_policy(config),
        args=grpo_arguments(config, run.folder, run.counts, banned, cuda=False),
        reward_funcs=group_rewards(config.reward, run.sides.train),
        train_dataset=run.sides.train.for_rewards(),
        processing_class=processor,
    )


def steps_of(trainer: Any) -> list[float]:
    """CPU seconds of each step but the first, which warms up."""
    clock = Clock()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock)
    trainer.train()
    return clock.steps[1:]


def overhead(folder: Path, steps: int, rounds: int) -> None:
    """Print CPU time of a step of both, and the ratio."""
    make_tiny(folder / "model", 3_000_000)
    data = write_data(folder / "data")
    settings = (
        f"model.path={folder / 'model'}",
        f"data.path={data}",
        f"optimiser.max_steps={steps + 1}",
        "batch.prompts=2",
        "batch.generations=8",
        "rollout.max_new_tokens=32",
        "checkpoints.every=1000",
    )
    config = load_config("tiny-cpu", settings)
    times: dict[str, list[float]] = {"bare TRL": [], "ours": []}
    for turn in range(rounds):
        for name in sorted(times, reverse=bool(turn % 2)):
            run = Run.prepared(config, folder / "run")
            trainer = bare(run) if name == "bare TRL" else run.trainer()
            times[name] += steps_of(trainer)
    middle = {name: median(found) for name, found in times.items()}
    for name, found in times.items():
        print(f"{name}: {1000 * middle[name]:.0f} ms of CPU a step (median of {len(found)})")
    print(f"overhead: {100 * (middle['ours'] / middle['bare TRL'] - 1):+.1f} %")


def preprocessing(folder: Path) -> None:
    """Print what 16 completions of one prompt cost, twice a rollout as TRL asks for them."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (840, 840, 3), dtype=np.uint8))
    for kept in (False, True):
        processor = AutoProcessor.from_pretrained(folder / "model").image_processor
        if kept:
            keep_preprocessed(processor)
        start = perf_counter()
        for _ in range(2):
            processor([[picture]] * 16, return_tensors="pt")
        seconds = perf_counter() - start
        name = "kept" if kept else "each time anew"
        print(f"16 duplicates of 840 x 840, twice, {name}: {1000 * seconds:.0f} ms")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        overhead(Path(folder), given.steps, given.rounds)
        preprocessing(Path(folder))


if __name__ == "__main__":
    main()
