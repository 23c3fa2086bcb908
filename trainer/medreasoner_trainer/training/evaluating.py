"""The callback that evaluates, shows completions and keeps checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from medreasoner_trainer.training.checkpoints import checkpoint_at, prune, seal
from medreasoner_trainer.training.config import TrainConfig
from medreasoner_trainer.training.examples import Examples
from medreasoner_trainer.training.greedy import Answered, GreedyEvaluator, summarise
from medreasoner_trainer.training.history import Evaluations
from medreasoner_trainer.training.pages import Shown, write_pages
from medreasoner_trainer.training.scoring import RECORD

__all__ = ["Evaluating", "Keeping", "last_rollout"]

_PAGES: Final = "completions"
_SCORES: Final = ("iou", "pdice")


class Evaluating(TrainerCallback):  # type: ignore[misc]
    """Evaluates before the first step, every so many, and after the last.

    Parameters
    ----------
    config : TrainConfig
        Of the run.
    run : Path
        Its folder.
    evaluator : GreedyEvaluator
        Answers the validation split.
    evaluations : Evaluations
        Where the figures go.
    train : Examples
        What rollouts are made of.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        evaluator: GreedyEvaluator,
        evaluations: Evaluations,
        train: Examples,
    ) -> None:
        self._config = config
        self._run = run
        self._evaluator = evaluator
        self._evaluations = evaluations
        self._train = train

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Learn what the model can do before it is trained."""
        if state.global_step == 0:
            self._evaluate(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate when it is due; the best so far is kept as a checkpoint."""
        due = state.global_step % self._config.evaluation.every == 0
        if not due and state.global_step < state.max_steps:
            return
        before = self._evaluations.best()
        metrics = self._evaluate(state)
        if before is None or metrics[self._config.evaluation.metric] > before.value:
            control.should_save = True

    def _evaluate(self, state: Any) -> dict[str, Any]:
        answers = self._evaluator.answers()
        metrics = summarise(answers, self._evaluator.examples)
        accelerator = self._evaluator.trainer.accelerator
        if accelerator.is_main_process:
            self._evaluations.add(state.global_step, metrics)
            sys.stderr.write(
                f"step {state.global_step}: validation IoU {metrics['iou']:.4f}, pDice "
                f"{metrics['pdice']:.4f}, unreadable {metrics['parse_failures']:.0%}\n"
            )
            self._tell(state, metrics, self._show(state.global_step, answers))
        accelerator.wait_for_everyone()
        return metrics

    def _show(self, step: int, answers: Sequence[Answered]) -> Path | None:
        count = self._config.log.pictures
        if not count:
            return None
        shown = [
            Shown(answer.place, answer.text, {name: getattr(answer, name) for name in _SCORES})
            for answer in answers[:count]
        ]
        parts = [("Validation, greedy", self._evaluator.examples, shown)]
        if rollout := last_rollout(self._evaluator.trainer, count):
            parts.append(("Training, sampled", self._train, rollout))
        return write_pages(self._run / _PAGES, step, parts)

    def _tell(self, state: Any, metrics: dict[str, Any], sheet: Path | None) -> None:
        """Tell the trackers that were asked for; the files are written anyway."""
        flat = {
            f"validation/{name}": value
            for name, value in metrics.items()
            if isinstance(value, float)
        }
        trackers = self._config.log.trackers
        if "tensorboard" in trackers:
            _tell_tensorboard(self._evaluator.trainer, state.global_step, flat, sheet)
        if "wandb" in trackers:
            import wandb

            pictures = {"completions": wandb.Image(str(sheet))} if sheet else {}
            wandb.log({**flat, **pictures})
        if "trackio" in trackers:
            import trackio

            pictures = {"completions": trackio.Image(str(sheet))} if sheet else {}
            trackio.log({**flat, **pictures})


def _tell_tensorboard(
    trainer: Any, step: int, metrics: Mapping[str, float], sheet: Path | None
) -> None:
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            for name, value in metrics.items():
                callback.tb_writer.add_scalar(name, value, step)
            if sheet is not None:
                with Image.open(sheet) as picture:
                    pixels = np.asarray(picture)
                callback.tb_writer.add_image("completions", pixels, step, dataformats="HWC")


def last_rollout(trainer: Any, count: int) -> list[Shown]:
    """Some completions of the last rollout with their rewards, best and worst among them.

    TRL keeps them for its own table, in the order in which they were judged.
    """
    logs = getattr(trainer, "_logs", None)
    if logs is None or not logs["completion"]:
        return []
    records, rewards = list(logs["extra"][RECORD]), logs["rewards"]
    columns = {name: list(values) for name, values in rewards.items()}
    totals = [sum(values) for values in zip(*columns.values(), strict=True)]
    order = sorted(range(len(totals)), key=lambda place: totals[place], reverse=True)
    chosen = [*order[: count - count // 2], *order[len(order) - count // 2 :]]
    completions = list(logs["completion"])
    return [
        Shown(
            records[place],
            completions[place][0]["content"],
            {name: values[place] for name, values in columns.items()},
        )
        for place in dict.fromkeys(chosen)
    ]


class Keeping(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint once it is written, then removes those no longer wanted.

    Parameters
    ----------
    run : Path
        Where they are.
    keep : int
        How many of the last stay.
    evaluations : Evaluations
        Says which one is the best.
    accelerator : accelerate.Accelerator
        Of the run.
    """

    def __init__(self, run: Path, keep: int, evaluations: Evaluations, accelerator: Any) -> None:
        self._run = run
        self._keep = keep
        self._evaluations = evaluations
        self._accelerator = accelerator

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint of this step when all devices have written their part."""
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            seal(checkpoint_at(self._run, state.global_step))
            best = self._evaluations.best()
            prune(self._run, self._keep, best.step if best else None)
        self._accelerator.wait_for_everyone()
