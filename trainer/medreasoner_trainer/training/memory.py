"""How much memory a run takes, roughly and from its parameters alone."""

from __future__ import annotations

from typing import Any, Final

from medreasoner_trainer.training.arithmetic import Arithmetic
from medreasoner_trainer.training.config import TrainConfig

__all__ = ["memory_lines"]

_GIB: Final = 2**30
_ADAM: Final = 8
"""Bytes of two float32 moments."""

_KEPT: Final = 2
_INSIDE: Final = 34
"""Bytes per token, layer and unit of width: with and without gradient checkpointing.

Korthikanti et al., "Reducing activation recomputation in large transformer models" (2022).
"""


def memory_lines(config: TrainConfig, policy: Any, counts: Arithmetic, longest: int) -> list[str]:
    """GiB of weights, gradients, optimiser and activations.

    Parameters
    ----------
    config : TrainConfig
        Of the run.
    policy : PreTrainedModel
        As it is loaded.
    counts : Arithmetic
        Of its batch.
    longest : int
        Tokens of the longest prompt.
    """
    total = sum(p.numel() for p in policy.parameters())
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    trained = sum(p.numel() * p.element_size() for p in policy.parameters() if p.requires_grad)
    count = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    if config.lora:
        count = _adapters(config.lora.rank, policy)
        trained = 4 * count
    reference = weights if config.loss.beta and not config.lora else 0
    text = policy.config.get_text_config()
    width, depth = text.hidden_size, text.num_hidden_layers
    tokens = config.batch.per_device * (longest + config.rollout.max_new_tokens)
    layers = _KEPT * depth + _INSIDE if config.optimiser.gradient_checkpointing else _INSIDE * depth
    activations = tokens * width * layers
    parts = {
        "weights": weights,
        "gradients": trained,
        "optimiser": count * _ADAM,
        "reference model": reference,
    }
    shared = sum(parts.values())
    told = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in parts.items())
    whole, sharded = shared + activations, shared / counts.devices + activations
    return [
        f"model: {total / 1e6:.1f} M parameters, {count / 1e6:.1f} M trained",
        f"memory in GiB, estimated: {told}, activations {activations / _GIB:.2f}",
        f"  = {whole / _GIB:.2f} on each device, {sharded / _GIB:.2f} under ZeRO-3 or FSDP",
        "  and what generation takes on top",
    ]


def _adapters(rank: int, policy: Any) -> int:
    """Parameters of adapters on the linear layers of the language model."""
    return sum(
        rank * sum(module.weight.shape)
        for name, module in policy.named_modules()
        if "language_model" in name and name.endswith("_proj")
    )
