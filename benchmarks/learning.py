"""A model of a few million parameters learns to ground from nothing, on the CPU.

SFT first, then GRPO from its best checkpoint; the curve of the validation split goes to
`curve.png`. `make train-tiny` needs MEDREASONER_SHARED, which names a folder with data/umrg_mini.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tiny_runs import COLD_START, SHORT, mini_or_end, with_short_trace
from medreasoner_trainer.training.checkpoints import checkpoint_at
from medreasoner_trainer.training.examples import Examples, Sides
from medreasoner_trainer.training.loading import load_config
from medreasoner_trainer.training.run import Run
from medreasoner_trainer.training.tiny import make_tiny

SHARED = [*SHORT, "evaluation.records=400", "checkpoints.every=1000000"]
GRPO = [
    "batch.prompts=16",
    "batch.generations=16",
    "batch.per_device=128",
    "optimiser.learning_rate=2e-4",
    # At 1 a model this small writes half its answers unreadably, and learns to write only.
    "rollout.temperature=0.7",
    "rollout.max_new_tokens=64",
]


def with_short_traces(examples: Examples) -> Examples:
    """The same records with traces of a few words."""
    return replace(examples, records=[with_short_trace(record) for record in examples.records])


def run(model: Path, data: Path, out: Path, overrides: list[str]) -> tuple[Path, float]:
    """Train; give the best checkpoint and the seconds it took."""
    where = [f"model.path={model}", f"data.path={data}"]
    config = load_config("tiny-cpu", [*where, *SHARED, *overrides])
    start = perf_counter()
    prepared = Run.prepared(config, out)
    sides = prepared.sides
    short = Sides(with_short_traces(sides.train), with_short_traces(sides.validation), 0)
    ending = replace(prepared, sides=short).train(resume=False)
    if ending.best is None:
        raise SystemExit("no evaluation was made")
    return checkpoint_at(out, ending.best.step), perf_counter() - start


def evaluations(out: Path) -> list[dict[str, float]]:
    """Lines that the run wrote."""
    return [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]


def draw(sft: list[dict[str, float]], grpo: list[dict[str, float]], path: Path) -> None:
    """Draw both curves into one picture."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, lines, title in zip(axes, (sft, grpo), ("SFT", "GRPO, Soft"), strict=True):
        steps = [line["step"] for line in lines]
        for name, label in (("iou", "IoU"), ("pdice", "pDice"), ("parse_failures", "unreadable")):
            axis.plot(steps, [line[name] for line in lines], marker=".", label=label)
        axis.set(title=title, xlabel="step")
    axes[0].set_ylabel("validation split")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/train-tiny"))
    parser.add_argument("--parameters", type=int, default=1_500_000)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--sft-steps", type=int, default=750)
    parser.add_argument("--grpo-steps", type=int, default=48)
    given = parser.parse_args()
    data = mini_or_end("train-tiny")
    size = make_tiny(given.out / "model", given.parameters, given.layers)
    print(f"{size:,} parameters")
    every = f"evaluation.every={given.sft_steps // 3}"
    steps = f"optimiser.max_steps={given.sft_steps}"
    best, seconds = run(given.out / "model", data, given.out / "sft", [*COLD_START, every, steps])
    print(f"SFT: {seconds / 60:.1f} min")
    every = f"evaluation.every={given.grpo_steps // 3}"
    steps = f"optimiser.max_steps={given.grpo_steps}"
    _, seconds = run(best, data, given.out / "grpo", [*GRPO, every, steps])
    print(f"GRPO: {seconds / 60:.1f} min")
    curves = evaluations(given.out / "sft"), evaluations(given.out / "grpo")
    draw(*curves, given.out / "curve.png")
    for name, lines in zip(("SFT", "GRPO"), curves, strict=True):
        for line in lines:
            print(f"{name} step {line['step']}: IoU {line['iou']:.4f}, pDice {line['pdice']:.4f}")


if __name__ == "__main__":
    main()
