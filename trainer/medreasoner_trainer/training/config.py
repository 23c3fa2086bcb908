"""What a training run is configured by: one YAML file, every key typed.

Lengths are tokens, sizes pixels, and `batch` counts prompts and completions of all devices
together, so that a recipe means the same on one GPU and on sixty-four.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medreasoner_trainer.rewards.score import PRESETS
from medreasoner_trainer.rewards.variants import VARIANTS
from napari_medreasoner.core.prompts import BUILT_IN, PromptTemplate

__all__ = [
    "Batch",
    "Checkpoints",
    "Data",
    "Evaluation",
    "Freeze",
    "Guard",
    "Log",
    "Lora",
    "Loss",
    "Model",
    "Optimiser",
    "Reward",
    "Rollout",
    "TrainConfig",
    "Vllm",
]

Method = Literal["sft", "grpo"]
Freeze = Literal["none", "vision", "vision and projector"]
Tracker = Literal["tensorboard", "wandb", "trackio"]

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]

_TEST: Final = "test"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Section):
    """The model that is trained.

    Attributes
    ----------
    path : str
        Folder, or a repository that is in the local cache.
    device : str
        "cuda" is refused where there is none; "auto" then takes the CPU.
    dtype : str
        Of the weights in memory. "auto": bfloat16 under LoRA on CUDA, else float32, which CUDA
        computes on in bfloat16. Weights in bfloat16 lose updates as small as 1e-6 unless
        something keeps a float32 copy (DeepSpeed does).
    freeze : str
        What keeps its weights: the vision tower, or with it the projector between the two.
    attention : str
        As in transformers: "sdpa", "eager" or "flash_attention_2".
    """

    path: str
    device: Literal["auto", "cpu", "cuda"] = "cuda"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    freeze: Freeze = "vision"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"


class Lora(_Section):
    """Low-rank adapters on the language model; the visual part has none.

    Attributes
    ----------
    rank, alpha, dropout
        As in LoRA's paper.
    quantisation : str or None
        "4bit" keeps the base model in four bits (QLoRA); CUDA only.
    """

    rank: Count = 64
    alpha: Positive = 128
    dropout: Share = 0.05
    quantisation: Literal["4bit"] | None = None


class Data(_Section):
    """What is trained on.

    Attributes
    ----------
    path : str
        As `medreasoner_trainer.data.open_data` reads it.
    train, validation : str
        Splits. Checkpoints are chosen on `validation`, so it may not be the test split; None
        holds out a twentieth of the training split, whole patients or images.
    limit : int or None
        Train on so many records, drawn at random.
    side : int
        Pictures are shown with the area of a square of this side, their own sides multiples of
        28. Coordinates the model reads and writes are pixels of the shown picture.
    prompt : str
        Built-in template ("Reasoning", "Direct") or a TOML file.
    """

    path: str
    train: str = "train"
    validation: str | None = "val"
    limit: Count | None = None
    side: Annotated[int, Field(ge=28, multiple_of=28)] = 840
    prompt: str = "Reasoning"

    @model_validator(mode="after")
    def _never_the_test(self) -> Self:
        if _TEST in (self.train, self.validation):
            raise ValueError('the split "test" is for the evaluation after training')
        if self.train == self.validation:
            raise ValueError("train and validation must be different splits")
        return self

    @property
    def template(self) -> PromptTemplate:
        """The prompt template.

        Raises
        ------
        TemplateError
            When the file cannot be used.
        """
        return BUILT_IN.get(self.prompt) or PromptTemplate.from_file(Path(self.prompt))


class Reward(_Section):
    """What a completion is rewarded for.

    Attributes
    ----------
    preset : str
        Which components count; see `medreasoner_trainer.rewards`.
    variant : str
        "released" as the authors' code, "paper" as its equations.
    weights : dict of str to float
        Of components; the others weigh 1.
    """

    preset: str = "soft"
    variant: str = "released"
    weights: dict[str, NotNegative] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of: {', '.join(PRESETS)}")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of: {', '.join(VARIANTS)}")
        counted = PRESETS[self.preset].counted
        if unknown := set(self.weights) - set(counted):
            raise ValueError(f"{min(unknown)} is none of: {', '.join(counted)}")
        return self


class Batch(_Section):
    """How much is learned from at a time, on all devices together.

    Attributes
    ----------
    prompts : int
        In a rollout (GRPO) or in an update (SFT).
    generations : int
        Completions of each prompt, the group of GRPO; 1 for SFT.
    updates : int
        Optimiser steps per rollout.
    per_device : int
        Sequences in memory at a time.
    """

    prompts: Count = 16
    generations: Count = 8
    updates: Count = 1
    per_device: Count = 1


class Vllm(_Section):
    """Generation with vLLM.

    Attributes
    ----------
    mode : str
        "colocate" shares each training GPU; "server" is `vllm serve` elsewhere.
    gpu_memory : float
        Share of a GPU it may take (colocate).
    sleep : bool
        Give the memory back while weights are updated (colocate).
    tensor_parallel : int
        GPUs that one copy spans (colocate).
    host, port, timeout
        Of the server; the timeout in seconds.
    max_length : int
        Prompt and completion together.
    correction : bool
        Truncated importance sampling against the difference between the two engines.
    """

    mode: Literal["colocate", "server"] = "colocate"
    gpu_memory: Share = 0.3
    sleep: bool = True
    tensor_parallel: Count = 1
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    timeout: Positive = 240
    max_length: Count = 4096
    correction: bool = True


class Rollout(_Section):
    """How completions are sampled; `vllm` None takes transformers."""

    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_prompt: Count = 2048
    max_new_tokens: Count = 768
    vllm: Vllm | None = None


class Loss(_Section):
    """GRPO's loss and its variants.

    Attributes
    ----------
    preset : str
        "grpo": mean over each completion, advantages over the group's deviation (the paper).
        "dr_grpo": no division by length nor by deviation. "dapo": mean over all tokens, clip-higher
        0.28, cut-off completions do not count.
    beta : float
        Weight of the KL term to the model at the start; 0 needs no second model.
    epsilon, epsilon_high : float
        Clipping of the ratio, below and above; None as the preset says.
    delta : float or None
        Upper bound of the ratio where the advantage is negative (dual clip).
    """

    preset: Literal["grpo", "dr_grpo", "dapo"] = "grpo"
    beta: NotNegative = 0.0
    epsilon: Positive = 0.2
    epsilon_high: Positive | None = None
    delta: Annotated[float, Field(gt=1)] | None = None


class Optimiser(_Section):
    """AdamW and how long it goes on; `max_steps` None trains for `epochs`."""

    learning_rate: Positive = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NotNegative = 0.01
    gradient_clip: Positive = 1.0
    epochs: Positive = 1.0
    max_steps: Count | None = None
    gradient_checkpointing: bool = True


class Evaluation(_Section):
    """Greedy answers on the validation split, every so many steps.

    Attributes
    ----------
    every : int
        Steps; also before the first one.
    records : int
        How many, drawn at random once.
    batch : int
        Answered at a time on each device.
    max_new_tokens : int
        Where an answer is cut off.
    metric : str
        What the best checkpoint is chosen by.
    """

    every: Count = 20
    records: Count = 128
    batch: Count = 8
    max_new_tokens: Count = 768
    metric: Literal["iou", "pdice"] = "iou"


class Checkpoints(_Section):
    """Every so many steps one is written; the last `keep` and the best stay."""

    every: Count = 20
    keep: Annotated[int, Field(ge=2)] = 2


class Guard(_Section):
    """When training is stopped because it has gone wrong; the best checkpoint stays.

    Attributes
    ----------
    patience : int
        Logs in a row that must be bad.
    max_kl : float
        Of the policy from the model at the start.
    reward_drop : float
        Share of the best mean reward so far that may be lost.
    parse_failures : float
        Rise, since the start, of the share of validation answers that cannot be read.
    off_policy : float
        Mean difference between the log-probabilities of vLLM and of the trainer.
    """

    patience: Count = 3
    max_kl: Positive = 10.0
    reward_drop: Share = 0.6
    parse_failures: Share = 0.3
    off_policy: Positive = 0.1


class Log(_Section):
    """What is written down besides `log.jsonl`, which always is.

    Attributes
    ----------
    every : int
        Steps.
    pictures : int
        Completions drawn over their pictures each time checkpoints are evaluated.
    trackers : tuple of str
        Services that are told as well.
    """

    every: Count = 1
    pictures: Annotated[int, Field(ge=0)] = 8
    trackers: tuple[Tracker, ...] = ()


class TrainConfig(_Section):
    """A whole run; the attributes are the sections of the file."""

    method: Method
    model: Model
    data: Data
    lora: Lora | None = None
    reward: Reward = Reward()
    batch: Batch = Batch()
    rollout: Rollout = Rollout()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    guard: Guard = Guard()
    log: Log = Log()
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.method == "sft" and self.batch.generations != 1:
            raise ValueError("batch.generations must be 1 for sft")
        if self.method == "grpo" and self.batch.generations < 2:
            raise ValueError("batch.generations must be 2 or more: a group is compared with itself")
        for name, every in (
            ("checkpoints", self.checkpoints.every),
            ("evaluation", self.evaluation.every),
        ):
            if every % self.batch.updates:
                raise ValueError(
                    f"{name}.every must be a multiple of batch.updates ({self.batch.updates}), "
                    "where a rollout is used up and a run can be gone on with exactly"
                )
        return self
