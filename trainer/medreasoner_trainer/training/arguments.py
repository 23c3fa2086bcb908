"""A run's configuration in TRL's own terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import accelerate
import torch
import transformers
import trl
from packaging.version import Version
from trl import GRPOConfig, SFTConfig

from medreasoner_trainer.training.arithmetic import Arithmetic
from medreasoner_trainer.training.config import Loss, TrainConfig, Vllm
from medreasoner_trainer.training.scoring import reward_weights
from napari_medreasoner.core.errors import SettingsError

__all__ = ["check_versions", "grpo_arguments", "sft_arguments"]

_FLOORS: Final = (
    # Before: sleep mode trains on stale weights, and positions of pictures are lost with liger.
    ("trl", trl.__version__, "1.16"),
    # Before: Qwen2.5-VL's processor fails on batches without padding.
    ("transformers", transformers.__version__, "5.4"),
    ("accelerate", accelerate.__version__, "1.10.1"),
    ("torch", torch.__version__, "2.10"),
)
_VLLM: Final = ("0.22", "0.32")
_CLIP_HIGHER: Final = 0.28
_SCHEDULES: Final = {
    # transformers' own "constant" takes no notice of a warm-up.
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
}
_LOSSES: Final[dict[str, dict[str, Any]]] = {
    "grpo": {"loss_type": "grpo", "scale_rewards": "group"},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dapo": {
        "loss_type": "dapo",
        "scale_rewards": "group",
        "epsilon_high": _CLIP_HIGHER,
        "mask_truncated_completions": True,
    },
}


def check_versions(vllm: str | None = None) -> None:
    """Refuse packages with faults that would spoil a run unseen.

    Parameters
    ----------
    vllm : str or None
        Version of vLLM, where it generates.

    Raises
    ------
    SettingsError
        When one is too old, or vLLM is one that TRL does not know.
    """
    for name, found, floor in _FLOORS:
        if Version(found) < Version(floor):
            raise SettingsError(
                f"{name} {found} has faults that spoil training; install {floor} or newer with: "
                "pip install --upgrade 'napari-medreasoner[train]'"
            )
    low, high = _VLLM
    if vllm is not None and not Version(low) <= Version(vllm) < Version(high):
        raise SettingsError(
            f"vLLM {vllm} is none that TRL {trl.__version__} works with; install one from {low} "
            f"to before {high}."
        )


def grpo_arguments(
    config: TrainConfig, out: Path, counts: Arithmetic, banned: list[int], *, cuda: bool
) -> GRPOConfig:
    """Arguments of TRL's GRPOTrainer.

    Parameters
    ----------
    config : TrainConfig
        Of the run.
    out : Path
        Its folder.
    counts : Arithmetic
        Of its batch.
    banned : list of int
        Tokens that no completion may hold.
    cuda : bool
        Whether it runs on CUDA.
    """
    rollout = config.rollout
    return GRPOConfig(
        **_shared(config, out, counts, cuda=cuda),
        **_loss(config.loss),
        **_vllm(rollout.vllm),
        num_generations=config.batch.generations,
        generation_batch_size=counts.sequences,
        max_completion_length=rollout.max_new_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
        reward_weights=reward_weights(config.reward),
        # TRL gathers every picture over all devices for its own table; ours looks them up.
        log_multimodal=False,
        log_completions=False,
        generation_kwargs=_ban(banned, vllm=rollout.vllm is not None),
    )


def _ban(tokens: list[int], *, vllm: bool) -> dict[str, Any]:
    if vllm:
        return {"logit_bias": dict.fromkeys(tokens, -100.0)}
    return {"suppress_tokens": tokens}


def _loss(loss: Loss) -> dict[str, Any]:
    given = {"epsilon_high": loss.epsilon_high, "delta": loss.delta}
    chosen = {key: value for key, value in given.items() if value is not None}
    return {"beta": loss.beta, "epsilon": loss.epsilon} | _LOSSES[loss.preset] | chosen


def _vllm(vllm: Vllm | None) -> dict[str, Any]:
    if vllm is None:
        return {"use_vllm": False}
    return {
        "use_vllm": True,
        "vllm_mode": vllm.mode,
        "vllm_gpu_memory_utilization": vllm.gpu_memory,
        "vllm_enable_sleep_mode": vllm.sleep and vllm.mode == "colocate",
        "vllm_tensor_parallel_size": vllm.tensor_parallel,
        "vllm_server_host": vllm.host,
        "vllm_server_port": vllm.port,
        "vllm_server_timeout": vllm.timeout,
        "vllm_max_model_length": vllm.max_length,
        "vllm_importance_sampling_correction": vllm.correction,
        "vllm_importance_sampling_mode": "token_truncate",
    }


def sft_arguments(config: TrainConfig, out: Path, counts: Arithmetic, *, cuda: bool) -> SFTConfig:
    """Arguments of TRL's SFTTrainer; see `grpo_arguments`."""
    return SFTConfig(
        **_shared(config, out, counts, cuda=cuda),
        max_length=None,  # what is too long was refused before: cutting would lose image tokens
        completion_only_loss=True,
        packing=False,
    )


def _shared(config: TrainConfig, out: Path, counts: Arithmetic, *, cuda: bool) -> dict[str, Any]:
    optimiser = config.optimiser
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": config.batch.per_device,
        "gradient_accumulation_steps": counts.accumulation,
        "max_steps": counts.steps,
        "learning_rate": optimiser.learning_rate,
        "lr_scheduler_type": _SCHEDULES[optimiser.schedule],
        "warmup_steps": optimiser.warmup_steps,
        "weight_decay": optimiser.weight_decay,
        "max_grad_norm": optimiser.gradient_clip,
        "gradient_checkpointing": optimiser.gradient_checkpointing,
        "logging_steps": config.log.every,
        "save_strategy": "steps",
        "save_steps": config.checkpoints.every,
        "eval_strategy": "no",
        "report_to": list(config.log.trackers) or "none",
        "use_cpu": not cuda,
        "bf16": cuda,
        "seed": config.seed,
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }
