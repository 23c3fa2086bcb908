"""What a run would do, before it does anything."""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import GenerationConfig

from medreasoner_trainer.rewards.score import PRESETS, score
from medreasoner_trainer.rewards.variants import VARIANTS
from medreasoner_trainer.training.greedy import texts_of
from medreasoner_trainer.training.memory import memory_lines
from medreasoner_trainer.training.policy import banned_tokens, load_policy, on_cuda
from medreasoner_trainer.training.run import Run

__all__ = ["dry_run"]

_RECORDS: Final = 2
_SAMPLES: Final = 4


def dry_run(run: Run) -> str:
    """Batch arithmetic, memory, and rewards of a few completions of the model as it is.

    Raises
    ------
    WeightsError, SettingsError
        When the model cannot be loaded here.
    """
    policy = load_policy(run.config)
    if on_cuda(run.config.model):
        policy = policy.to("cuda")
    sides = run.sides
    records = (
        f"{len(sides.train)} training records, {len(sides.validation)} of validation, "
        f"{sides.unusable} unusable; longest prompt {run.longest} tokens"
    )
    lines = [
        records,
        *run.counts.lines(run.config),
        *memory_lines(run.config, policy, run.counts, run.longest),
        *_rewards(run, policy),
    ]
    return "\n".join(lines)


def _rewards(run: Run, policy: Any) -> list[str]:
    """Mean of each component over sampled completions of the first records."""
    config, tokenizer = run.config, run.processor.tokenizer
    how = GenerationConfig(
        do_sample=True,
        temperature=config.rollout.temperature,
        top_p=config.rollout.top_p,
        max_new_tokens=config.rollout.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        suppress_tokens=banned_tokens(run.processor),
        disable_compile=True,
    )
    indices = [index for index in range(_RECORDS) for _ in range(_SAMPLES)]
    torch.manual_seed(config.seed)
    with torch.no_grad():
        texts = texts_of(policy, run.processor, run.sides.train, indices, how)
    preset, variant = PRESETS[config.reward.preset], VARIANTS[config.reward.variant]
    judged = [
        score(text, run.sides.train.truth(index), preset, variant)
        for text, index in zip(texts, indices, strict=True)
    ]
    lines = [f"rewards of {len(judged)} completions before any training:"]
    for name in (*preset.counted, "score"):
        values = [parts[name] for parts in judged]
        mean = sum(values) / len(values)
        lines.append(f"  {name:<14} {mean:.3f} (from {min(values):.3f} to {max(values):.3f})")
    return lines
