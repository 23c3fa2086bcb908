"""From a recipe's batch to what one device does, and to a run's length."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

from medreasoner_trainer.training.config import TrainConfig
from napari_medreasoner.core.errors import SettingsError

__all__ = ["Arithmetic"]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Counts of one run.

    Attributes
    ----------
    devices : int
        Processes that train.
    sequences : int
        Prompt and completion, per rollout on all devices.
    accumulation : int
        Passes of `per_device` sequences on each device before an update.
    passes : int
        Such passes per rollout.
    rollouts, steps : int
        Of the whole run; a step is one update.
    """

    devices: int
    sequences: int
    accumulation: int
    passes: int
    rollouts: int
    steps: int

    @classmethod
    def of(cls, config: TrainConfig, records: int, devices: int) -> Arithmetic:
        """Count, for so many training records.

        Raises
        ------
        SettingsError
            When the batch does not divide evenly, or there are too few records for one.
        """
        batch, optimiser = config.batch, config.optimiser
        sequences = batch.prompts * batch.generations
        share = batch.updates * batch.per_device * devices
        if sequences % share:
            raise SettingsError(
                f"{batch.prompts} prompts x {batch.generations} completions = {sequences} do not "
                f"divide by {batch.updates} updates x {batch.per_device} per device x {devices} "
                f"devices = {share}; change batch.prompts to a multiple of "
                f"{_least_prompts(batch.generations, share)} or batch.per_device."
            )
        if records < batch.prompts:
            raise SettingsError(
                f"There are {records} training records, but batch.prompts asks for "
                f"{batch.prompts} at a time; lower it or take more data."
            )
        per_epoch = (
            records // batch.prompts if config.method == "grpo" else ceil(records / batch.prompts)
        )
        steps = optimiser.max_steps or floor(per_epoch * batch.updates * optimiser.epochs)
        accumulation = sequences // share
        return cls(
            devices=devices,
            sequences=sequences,
            accumulation=accumulation,
            passes=accumulation * batch.updates,
            rollouts=ceil(steps / batch.updates),
            steps=steps,
        )

    def lines(self, config: TrainConfig) -> list[str]:
        """In words."""
        batch = config.batch
        text = [f"{self.devices} devices, {batch.per_device} sequences at a time on each"]
        if config.method == "grpo":
            text.append(
                f"rollout: {batch.prompts} prompts x {batch.generations} completions = "
                f"{self.sequences} sequences, {self.passes} passes on each device"
            )
        text.append(
            f"update: {self.sequences // batch.updates} sequences = {batch.per_device} x "
            f"{self.devices} devices x {self.accumulation} accumulated; {batch.updates} per "
            f"{'rollout' if config.method == 'grpo' else 'batch'}"
        )
        text.append(f"run: {self.steps} updates from {self.rollouts} batches of prompts")
        return text


def _least_prompts(generations: int, share: int) -> int:
    return next(n for n in range(1, share + 1) if n * generations % share == 0)
