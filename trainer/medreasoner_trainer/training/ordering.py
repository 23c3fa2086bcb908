"""The order in which prompts are taken, which depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

from trl.trainer.utils import RepeatSampler

__all__ = ["EpochSampler"]


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler, which a resumed run can put into a later epoch.

    TRL's own draws one order after another from a generator that is no part of a checkpoint, so
    that a run resumed in its second epoch would take the prompts in the order of the first.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; trainers of transformers do."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        yield from super().__iter__()
