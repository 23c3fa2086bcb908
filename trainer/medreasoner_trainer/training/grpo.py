"""TRL's GRPOTrainer with what it lacks for grounding with vision-language models."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from trl import GRPOTrainer

from medreasoner_trainer.training.ordering import EpochSampler
from medreasoner_trainer.training.policy import banned_tokens
from medreasoner_trainer.training.restoring import Restoring
from medreasoner_trainer.training.timing import Stopwatch
from napari_medreasoner.core.errors import EngineError

__all__ = ["GroundingTrainer", "collapsed"]


def collapsed(tokens: list[int], placeholder: int) -> list[int]:
    """Write each run of the placeholder once, as it was before the processor expanded it.

    vLLM expands placeholders itself; given expanded ones it makes 2n - 1 of n.
    """
    return [
        token
        for value, run in groupby(tokens)
        for token in ([value] if value == placeholder else list(run))
    ]


class GroundingTrainer(Restoring, GRPOTrainer):  # type: ignore[misc]
    """Times its phases, guards image tokens, and keeps the last rollout for the table.

    Takes the arguments of TRL's GRPOTrainer.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.watch = Stopwatch()
        super().__init__(*args, **options)
        self._banned = frozenset(banned_tokens(self.processing_class))
        if self.use_vllm:
            self._guard_vllm()

    def _guard_vllm(self) -> None:
        """Hand vLLM placeholders that are not expanded, and check once that it expands them."""
        generate, sync = self.vllm_generation.generate, self.vllm_generation.sync_weights
        expanding = self.args.vllm_mode == "colocate"

        def guarded(prompts: list[list[int]], **options: Any) -> Any:
            pad = self._image_pad_token_id
            given = [collapsed(ids, pad) for ids in prompts] if expanding else prompts
            made = generate(prompts=given, **options)
            check_expansion(prompts, made[0])
            return made

        def timed() -> None:
            with self.watch.phase("sync"):
                sync()

        self.vllm_generation.generate, self.vllm_generation.sync_weights = guarded, timed

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        return EpochSampler(
            data_source=self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        with self.watch.phase("preprocess"):
            return super()._tokenize_prompts(prompts)

    def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
        with self.watch.phase("generate"):
            made = super()._generate_single_turn(*args, **options)
        if any(not self._banned.isdisjoint(tokens) for tokens in made[0]):
            raise EngineError(
                "A completion holds a token that stands for a picture, although these are banned; "
                "the engine that generates ignores the ban, so use another version of it."
            )
        return made

    def _calculate_rewards(self, *args: Any) -> Any:
        with self.watch.phase("reward"):
            return super()._calculate_rewards(*args)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        with self.watch.phase("log-probabilities"):
            return super()._generate_and_score_completions(inputs)

    def training_step(self, *args: Any) -> Any:
        """One pass of `per_device` sequences; a rollout first, when one is due."""
        with self.watch.phase("update"):
            return super().training_step(*args)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the seconds of each phase."""
        if self.model.training:
            logs |= {f"seconds/{name}": spent for name, spent in self.watch.take().items()}
        super().log(logs, start_time)


def check_expansion(sent: list[list[int]], seen: list[list[int]]) -> None:
    """Refuse to train where the engine that generates saw other prompts than are trained on.

    Raises
    ------
    EngineError
        When a prompt has another length there.
    """
    for ours, theirs in zip(sent, seen, strict=True):
        if len(ours) != len(theirs):
            raise EngineError(
                f"vLLM saw a prompt of {len(theirs)} tokens where training has {len(ours)}: the "
                "picture was expanded otherwise; check that both read the same processor files."
            )
