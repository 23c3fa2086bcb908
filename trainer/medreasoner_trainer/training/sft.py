"""TRL's SFTTrainer for vision-language models."""

from __future__ import annotations

from trl import SFTTrainer

from medreasoner_trainer.training.restoring import Restoring

__all__ = ["SupervisedTrainer"]


class SupervisedTrainer(Restoring, SFTTrainer):  # type: ignore[misc]
    """Takes the arguments of TRL's SFTTrainer."""
