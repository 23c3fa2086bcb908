"""Which reward leads how far: SFT and four rewards from one cold start, in and out of distribution.

What is asked, and what is reported whatever comes, is in `trainer/ablation/README.md`. Broken off,
it goes on where it was: an arm that has been judged is not run again, and one that was being
trained goes on from its last checkpoint. `make ablation` needs MEDREASONER_SHARED, which names a
folder with data/umrg_mini.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ablation_data import Sets, is_known
from benchmarks.ablation_results import Judged, publish, read, write
from benchmarks.tiny_runs import COLD_START, SHORT, mini_or_end
from medreasoner_trainer.evaluation.run import choose
from medreasoner_trainer.training.checkpoints import checkpoint_at, fault_of
from medreasoner_trainer.training.config import TrainConfig
from medreasoner_trainer.training.examples import Examples, Sides
from medreasoner_trainer.training.greedy import GreedyEvaluator
from medreasoner_trainer.training.loading import load_config
from medreasoner_trainer.training.run import Run
from medreasoner_trainer.training.tiny import make_tiny
from napari_medreasoner.imaging.writers.atomic import write_text

NONE: Final = "none"
ARMS: Final = (NONE, "sft", "base-released", "base", "hard", "soft")
CAUGHT: Final = 143

SHARED: Final = (
    *SHORT,
    "evaluation.max_new_tokens=56",
    "rollout.max_new_tokens=56",
    "log.pictures=0",
    # No arm may stop before the others: one that collapses is reported as it is.
    "guard.patience=1000000",
    "guard.reward_drop=1",
    "guard.parse_failures=1",
)
ARM: Final = ("batch.prompts=8", "model.freeze=vision", "log.every=1")
SUPERVISED: Final = (
    "method=sft",
    "batch.generations=1",
    "batch.per_device=8",
    "optimiser.learning_rate=1e-3",
    "optimiser.schedule=cosine",
    "optimiser.warmup_steps=5",
)
REWARDED: Final = (
    "batch.generations=16",
    "batch.per_device=128",
    "optimiser.learning_rate=2e-4",
    "rollout.temperature=0.7",
)


@dataclass(frozen=True)
class Plan:
    """What makes two ablations comparable; kept beside the results.

    Attributes
    ----------
    updates : int
        Of each arm.
    cold_updates : int
        Of the cold start.
    parameters, layers : int
        Of the model.
    """

    updates: int
    cold_updates: int
    parameters: int
    layers: int


@dataclass(frozen=True)
class Ablation:
    """One cold start and the arms that go on from it.

    Parameters
    ----------
    plan : Plan
        What is done.
    data, out : Path
        Folders of the data set and of everything that is written.
    sets : Sets
        Records by what they are for.
    """

    plan: Plan
    data: Path
    out: Path
    sets: Sets

    @property
    def cold(self) -> Path:
        """The model that all arms start from."""
        return checkpoint_at(self.out / "cold", self.plan.cold_updates)

    def start(self) -> None:
        """Make the cold start."""
        make_tiny(self.out / "model", self.plan.parameters, self.plan.layers)
        steps = self.plan.cold_updates
        config = self._config(self.out / "model", *COLD_START, *_length(steps))
        self._train(config, self.out / "cold", self.sets.cold)

    def judge(self, arm: str, seed: int, split: str) -> Judged:
        """Train an arm unless it is trained, and let its last checkpoint answer a split."""
        folder = self.out / f"{arm}-{seed}"
        kept = folder / f"{split}.json"
        if kept.is_file():
            return read(kept)
        print(f"{arm}, seed {seed}, {split}", flush=True)
        config, model = self._config_of(arm, seed), self.cold
        if arm != NONE:
            self._train(config, folder, self.sets.train)
            model = checkpoint_at(folder, self.plan.updates)
        judged = Judged(arm, seed, split, facts_of(folder), self._answers(model, folder, split))
        write(judged, kept)
        return judged

    def _config_of(self, arm: str, seed: int) -> TrainConfig:
        method = SUPERVISED if arm == "sft" else REWARDED
        preset = () if arm in (NONE, "sft") else (f"reward.preset={arm}",)
        length = _length(self.plan.updates)
        return self._config(self.cold, *ARM, *method, *preset, *length, f"seed={seed}")

    def _config(self, model: Path, *overrides: str) -> TrainConfig:
        where = (f"model.path={model}", f"data.path={self.data}")
        return load_config("tiny-cpu", [*where, *SHARED, *overrides])

    def _train(self, config: TrainConfig, folder: Path, train: Examples) -> None:
        """Train to the end, from where an earlier call was broken off."""
        steps = config.optimiser.max_steps
        if steps and not fault_of(checkpoint_at(folder, steps)):
            return
        prepared = Run.prepared(config, folder)
        held = self.sets.judged["val"]
        known = [record for record in held.records if is_known(record)]
        watched = replace(held, records=choose(known, config.evaluation.records, 0))
        if replace(prepared, sides=Sides(train, watched, 0)).train(resume=True).caught:
            raise SystemExit(CAUGHT)

    def _answers(self, model: Path, folder: Path, split: str) -> list[dict[str, object]]:
        """Greedy answers to a split, as `Judged` keeps them."""
        config = self._config(model, *ARM, *REWARDED)
        examples = self.sets.judged[split]
        run = Run.prepared(config, folder)
        judge = GreedyEvaluator(run.trainer(), run.processor, examples, config.evaluation)
        found = []
        for answer in judge.answers():
            record = examples.records[answer.place]
            named = {"id": record.id, "group": record.group or record.image}
            side = {"side": "ID" if is_known(record) else "OOD"}
            scores = ("iou", "pdice", "parse_failures")
            found.append(named | side | {name: getattr(answer, name) for name in scores})
        return found


def _length(steps: int) -> tuple[str, ...]:
    """So many updates, with evaluations and checkpoints that do not take long."""
    return (
        f"optimiser.max_steps={steps}",
        f"evaluation.every={steps}",
        "evaluation.records=33",
        f"checkpoints.every={max(1, steps // 4)}",
    )


def facts_of(folder: Path) -> dict[str, float]:
    """Of a run's log: share of groups whose rewards do not vary, mean reward first and last."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    flat = [line["frac_reward_zero_std"] for line in lines if "frac_reward_zero_std" in line]
    if not flat:
        return {}
    reward = [line["reward"] for line in lines if "reward" in line]
    part = max(1, len(reward) // 5)
    return {
        "flat": sum(flat) / len(flat),
        "reward_first": sum(reward[:part]) / part,
        "reward_last": sum(reward[-part:]) / part,
    }


def order(arms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int, str]]:
    """Whole seeds first; the test split when every arm is trained."""
    for split in ("val", "test"):
        for seed in seeds:
            for arm in arms:
                if arm != NONE or seed == seeds[0]:
                    yield arm, 0 if arm == NONE else seed, split


def keep_plan(plan: Plan, out: Path) -> None:
    """Refuse a folder with the results of another plan."""
    path, text = out / "plan.json", json.dumps(asdict(plan)) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{out} holds an ablation with another plan; give another folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has not been run, and publish after each arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/ablation"))
    parser.add_argument("--updates", type=int, default=50, help="of each arm")
    parser.add_argument("--cold-updates", type=int, default=900, help="of the cold start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--parameters", type=int, default=1_500_000)
    parser.add_argument("--layers", type=int, default=3)
    given = parser.parse_args(arguments)
    data = mini_or_end("ablation")
    plan = Plan(given.updates, given.cold_updates, given.parameters, given.layers)
    keep_plan(plan, given.out)
    config = load_config("tiny-cpu", [f"data.path={data}", *SHARED])
    ablation = Ablation(plan, data, given.out, Sets.of(config))
    ablation.start()
    results = []
    for arm, seed, split in order(given.arms, given.seeds):
        results.append(ablation.judge(arm, seed, split))
        publish(results, given.out)
    print((given.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
