"""One training run, from its configuration to its checkpoints."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from transformers import PrinterCallback
from transformers.utils.logging import disable_progress_bar

from medreasoner_trainer.training.arguments import check_versions, grpo_arguments, sft_arguments
from medreasoner_trainer.training.arithmetic import Arithmetic
from medreasoner_trainer.training.checkpoints import checkpoints_in, last_whole, set_aside
from medreasoner_trainer.training.config import TrainConfig
from medreasoner_trainer.training.evaluating import Evaluating, Keeping
from medreasoner_trainer.training.examples import Sides, open_sides
from medreasoner_trainer.training.greedy import GreedyEvaluator
from medreasoner_trainer.training.grpo import GroundingTrainer
from medreasoner_trainer.training.history import Evaluations, History, Score
from medreasoner_trainer.training.loading import load_config, save_config
from medreasoner_trainer.training.policy import (
    banned_tokens,
    check_lengths,
    load_policy,
    load_processor,
    lora_settings,
    on_cuda,
)
from medreasoner_trainer.training.scoring import group_rewards
from medreasoner_trainer.training.sft import SupervisedTrainer
from medreasoner_trainer.training.watching import CollapseGuard, Logger, SignalCatcher
from napari_medreasoner.core.errors import (
    EngineError,
    ExportError,
    MemoryShortageError,
    SettingsError,
)
from napari_medreasoner.imaging.writers.atomic import make_folder

__all__ = ["CONFIG", "Ending", "Run", "evaluations_of", "world_size"]

CONFIG: Final = "config.yaml"
_EVALUATIONS: Final = "evaluations.jsonl"
_LOG: Final = "log.jsonl"
_STOP: Final = "stop"
_FREE_TO_CHANGE: Final = {
    "optimiser": {"max_steps", "epochs"},
    "model": {"device"},
    "checkpoints": True,
    "log": True,
    "guard": True,
}
"""What a run may be gone on with otherwise, as it does not change what a step does."""

_GIB: Final = 2**30


class Ending(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    step : int
        The last one.
    best : Score or None
        Best value of the metric on the validation split.
    caught : bool
        A signal ended it early; it can be gone on with.
    """

    step: int
    best: Score | None
    caught: bool


def world_size() -> int:
    """Processes of this run, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def evaluations_of(run: Path, config: TrainConfig) -> Evaluations:
    """What the validation split said in a run."""
    return Evaluations(run / _EVALUATIONS, config.evaluation.metric)


@dataclass(frozen=True)
class Run:
    """A run that can start: everything that can be checked beforehand has been.

    Attributes
    ----------
    config : TrainConfig
        What is done.
    folder : Path
        Where its files go.
    sides : Sides
        What it learns from and is judged by.
    processor : Any
        Of the model.
    counts : Arithmetic
        Of its batch.
    longest : int
        Tokens of the longest prompt with its picture.
    """

    config: TrainConfig
    folder: Path
    sides: Sides
    processor: Any
    counts: Arithmetic
    longest: int

    @classmethod
    def prepared(cls, config: TrainConfig, folder: Path) -> Run:
        """Open data and processor, and refuse what would fail later.

        Raises
        ------
        MedReasonerError
            One sentence on what is wrong.
        """
        disable_progress_bar()
        check_versions(_vllm_version() if config.rollout.vllm else None)
        on_cuda(config.model)
        sides = open_sides(config)
        splits = (sides.train, sides.validation)
        processor = load_processor(config.model, splits)
        longest = check_lengths(processor, splits, config.rollout.max_prompt)
        counts = Arithmetic.of(config, len(sides.train), world_size())
        return cls(config, folder, sides, processor, counts, longest)

    def train(self, *, resume: bool) -> Ending:
        """Train to the end, or until a signal.

        Parameters
        ----------
        resume : bool
            Go on from the last whole checkpoint where there is one.

        Raises
        ------
        SettingsError
            When the folder holds a run that is not to be gone on with, or another one.
        EngineError
            When the run has collapsed; its best checkpoint stays.
        ExportError, MemoryShortageError
            When disk or memory are full.
        """
        checkpoint, faults = self._checkpoint(resume=resume)
        trainer = self.trainer()
        # Nothing is written before every process has looked at what was there.
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            self._begin(checkpoint, faults)
        trainer.accelerator.wait_for_everyone()
        catcher, guard, evaluations = self._watch(trainer)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError as error:
            raise MemoryShortageError(
                "The device is out of memory; lower batch.per_device, rollout.max_new_tokens or "
                "data.side, or train with lora."
            ) from error
        except (OSError, RuntimeError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
                raise ExportError(
                    f"The disk of {self.folder} is full; free space and go on with --resume auto."
                ) from error
            raise
        if guard.reason:
            raise EngineError(
                f"Training stopped at step {trainer.state.global_step}: {guard.reason}; the best "
                f"checkpoint is kept in {self.folder}, so lower the learning rate and try again."
            )
        return Ending(trainer.state.global_step, evaluations.best(), catcher.caught)

    def _checkpoint(self, *, resume: bool) -> tuple[Path | None, dict[Path, str]]:
        """The checkpoint to go on from, and what is wrong with later ones."""
        saved = self.folder / CONFIG
        if not saved.is_file():
            make_folder(self.folder)
            return None, {}
        if not resume:
            raise SettingsError(
                f"{self.folder} holds a run; go on with it with --resume auto, or give another "
                "folder."
            )
        _require_same(load_config(str(saved)), self.config, saved)
        return last_whole(self.folder)

    def _begin(self, checkpoint: Path | None, faults: dict[Path, str]) -> None:
        """Write the configuration, or tidy up behind the checkpoint to go on from."""
        saved = self.folder / CONFIG
        if not saved.is_file():
            save_config(self.config, saved)
            return
        for path, fault in faults.items():
            aside = set_aside(path)
            sys.stderr.write(f"{path.name} is not used, as {fault}; it is {aside.name} now.\n")
        step = max(checkpoints_in(self.folder), default=0)
        evaluations_of(self.folder, self.config).cut(step if checkpoint else -1)
        History(self.folder / _LOG).cut(step)

    def trainer(self) -> Any:
        """TRL's trainer with the model loaded.

        Raises
        ------
        WeightsError, ExportError
            When it cannot be loaded, or the disk cannot hold its checkpoints.
        """
        config, cuda = self.config, on_cuda(self.config.model)
        policy = load_policy(config)
        self._require_space(policy)
        adapters = lora_settings(config.lora)
        if config.method == "sft":
            return SupervisedTrainer(
                model=policy,
                args=sft_arguments(config, self.folder, self.counts, cuda=cuda),
                train_dataset=self.sides.train.for_supervision(),
                processing_class=self.processor,
                peft_config=adapters,
            )
        banned = banned_tokens(self.processor)
        return GroundingTrainer(
            model=policy,
            args=grpo_arguments(config, self.folder, self.counts, banned, cuda=cuda),
            reward_funcs=group_rewards(config.reward, self.sides.train),
            train_dataset=self.sides.train.for_rewards(),
            processing_class=self.processor,
            peft_config=adapters,
        )

    def _require_space(self, policy: Any) -> None:
        """Weights, two moments of Adam, and that for all checkpoints there may be at once."""
        config = self.config
        trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
        weights = sum(p.numel() * p.element_size() for p in policy.parameters())
        one = (0 if config.lora else weights) + 8 * (0 if config.lora else trained)
        wanted = one * (config.checkpoints.keep + 2)
        make_folder(self.folder)
        free = shutil.disk_usage(self.folder).free
        if free < wanted:
            raise ExportError(
                f"{self.folder} has {free / _GIB:.0f} GiB free, but {config.checkpoints.keep + 2} "
                f"checkpoints may take {wanted / _GIB:.0f} GiB; free space, choose another disk or "
                "train with lora."
            )

    def _watch(self, trainer: Any) -> tuple[SignalCatcher, CollapseGuard, Evaluations]:
        config = self.config
        evaluations = evaluations_of(self.folder, config)
        evaluator = GreedyEvaluator(
            trainer, self.processor, self.sides.validation, config.evaluation
        )
        catcher = SignalCatcher(config.batch.updates, self.folder / _STOP)
        guard = CollapseGuard(config.guard, evaluations)
        trainer.remove_callback(PrinterCallback)
        for callback in (
            Logger(History(self.folder / _LOG)),
            Evaluating(config, self.folder, evaluator, evaluations, self.sides.train),
            Keeping(self.folder, config.checkpoints.keep, evaluations, trainer.accelerator),
            guard,
            catcher,
        ):
            trainer.add_callback(callback)
        return catcher, guard, evaluations


def _vllm_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vllm")
    except PackageNotFoundError as error:
        raise SettingsError(
            "rollout.vllm needs vLLM, which is not installed; install it with: pip install "
            "'napari-medreasoner[vllm]', or set rollout.vllm=null."
        ) from error


def _require_same(before: TrainConfig, now: TrainConfig, path: Path) -> None:
    """Refuse to go on with a run under another configuration.

    Raises
    ------
    SettingsError
        When a key that matters differs.
    """
    fixed = [
        config.model_dump(mode="json", exclude=_FREE_TO_CHANGE)  # type: ignore[arg-type]
        for config in (before, now)
    ]
    for section, old in fixed[0].items():
        if old != fixed[1][section]:
            raise SettingsError(
                f'The section "{section}" differs from that of {path}; go on with the same '
                "configuration, or start another run in another folder."
            )
