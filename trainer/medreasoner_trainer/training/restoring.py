"""Weights of a checkpoint put back into the model, whole."""

from __future__ import annotations

from typing import Any

from peft import PeftModel

__all__ = ["Restoring"]


class Restoring:
    """For trainers of transformers, which lose a vision-language model's weights on resuming.

    `save_pretrained` writes names as the hub has them, and transformers 5.17 then looks for those
    of the model's own parts, finds none, and goes on with the weights that the run began with.
    """

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        trainer: Any = self
        target = model or trainer.model
        sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
        if sharded or isinstance(target, PeftModel):
            super()._load_from_checkpoint(checkpoint, model)  # type: ignore[misc]
            return
        loaded = type(target).from_pretrained(checkpoint, dtype=target.dtype)
        target.load_state_dict(loaded.state_dict())
