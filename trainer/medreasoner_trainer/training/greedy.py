"""Greedy answers on the validation split, and what they are worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from accelerate.utils import gather_object
from transformers import GenerationConfig
from trl.distributed import DistributedBackend
from trl.models import unwrap_model_for_generation

from medreasoner_trainer.training.config import Evaluation
from medreasoner_trainer.training.examples import Examples
from medreasoner_trainer.training.policy import banned_tokens
from napari_medreasoner.core.grounding import parse_halves
from napari_medreasoner.core.metrics import circles_dice, corners_iou

__all__ = ["Answered", "GreedyEvaluator", "summarise", "texts_of"]

_METRICS: Final = ("iou", "pdice", "parse_failures")


class Answered(NamedTuple):
    """One validation record's answer.

    Attributes
    ----------
    place : int
        Of the record in its `Examples`.
    text : str
        The completion.
    iou, pdice : float
        Of the shown picture's boxes and points, 0 where there are none.
    parse_failures : float
        1 where neither could be read.
    """

    place: int
    text: str
    iou: float
    pdice: float
    parse_failures: float


def judge(index: int, text: str, examples: Examples) -> Answered:
    """Score a completion of a record."""
    truth = examples.truth(index)
    halves = parse_halves(text, *examples.scale(index).shown)
    iou = corners_iou(halves.box.corners, truth.box) if halves.box else 0.0
    pdice = 0.0
    if halves.points:
        first, second = halves.points
        pdice = circles_dice(((first.x, first.y), (second.x, second.y)), truth.points)
    failed = halves.box is None and halves.points is None
    return Answered(index, text, iou, pdice, float(failed))


def summarise(answers: Sequence[Answered], examples: Examples) -> dict[str, Any]:
    """Means over all records, and by super-category under "supercategories"."""
    groups: defaultdict[str, list[Answered]] = defaultdict(list)
    for answer in answers:
        groups[examples.records[answer.place].supercategory].append(answer)
    return _means(answers) | {
        "records": len(answers),
        "supercategories": {name: _means(found) for name, found in sorted(groups.items())},
    }


def _means(answers: Sequence[Answered]) -> dict[str, float]:
    return {
        name: sum(getattr(answer, name) for answer in answers) / len(answers) for name in _METRICS
    }


@dataclass(frozen=True)
class GreedyEvaluator:
    """Answers every validation record without sampling.

    Parameters
    ----------
    trainer : transformers.Trainer
        Holds the model.
    processor : Any
        Of the model; pads on the left.
    examples : Examples
        The validation split.
    settings : Evaluation
        Batch size and length.
    """

    trainer: Any
    processor: Any
    examples: Examples
    settings: Evaluation

    def answers(self) -> list[Answered]:
        """Answer on all devices; every device gets all answers, in the records' order."""
        accelerator = self.trainer.accelerator
        mine = range(accelerator.process_index, len(self.examples), accelerator.num_processes)
        found = [judge(index, text, self.examples) for index, text in self._generate(list(mine))]
        gathered = [Answered(*answer) for answer in gather_object([tuple(a) for a in found])]
        return sorted(gathered)

    def _generate(self, indices: list[int]) -> Iterator[tuple[int, str]]:
        trainer, model = self.trainer, self.trainer.model
        training, size = model.training, self.settings.batch
        model.eval()
        backend = DistributedBackend(trainer.accelerator)
        with (
            torch.random.fork_rng(),  # evaluating must not change what training samples next
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            ) as unwrapped,
            torch.no_grad(),
            backend.summon_full_params(trainer.model_wrapped, recurse=False),
        ):
            for start in range(0, len(indices), size):
                chunk = indices[start : start + size]
                texts = texts_of(unwrapped, self.processor, self.examples, chunk, self._greedy())
                yield from zip(chunk, texts, strict=True)
        model.train(training)

    def _greedy(self) -> GenerationConfig:
        tokenizer = self.processor.tokenizer
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=self.settings.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
            suppress_tokens=banned_tokens(self.processor),
            disable_compile=True,
        )


def texts_of(
    model: Any, processor: Any, examples: Examples, indices: Sequence[int], how: GenerationConfig
) -> list[str]:
    """Let a model answer these records, together."""
    inputs = processor.apply_chat_template(
        [conversation(examples, index) for index in indices],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    ).to(model.device)
    made = model.generate(**inputs, generation_config=how)
    length = inputs["input_ids"].shape[1]
    texts: list[str] = processor.batch_decode(made[:, length:], skip_special_tokens=True)
    return texts


def conversation(examples: Examples, index: int) -> list[dict[str, Any]]:
    """A record's prompt with its picture before the first text of the user."""
    picture: dict[str, Any] = {"type": "image", "image": examples.picture(index)}
    messages = []
    for message in examples.messages(index):
        text = {"type": "text", "text": message["content"]}
        content = [picture, text] if message["role"] == "user" else [text]
        messages.append({"role": message["role"], "content": content})
    return messages
