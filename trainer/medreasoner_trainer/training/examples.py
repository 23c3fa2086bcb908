"""Records as what TRL is given: prompt, picture, and what the rewards need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

from datasets import Dataset
from PIL.Image import Image

from medreasoner_trainer.construct import question_for
from medreasoner_trainer.construct.traces import trace_for
from medreasoner_trainer.data import DataSet, Record, open_data
from medreasoner_trainer.data.split import hold_out_groups
from medreasoner_trainer.evaluation.run import choose
from medreasoner_trainer.rewards.truth import Truth
from medreasoner_trainer.training.config import TrainConfig
from medreasoner_trainer.training.pictures import Scale, resized
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.grounding import format_answer
from napari_medreasoner.core.prompts import PromptTemplate

__all__ = ["Examples", "Sides", "open_sides"]

_HELD_OUT: Final = 0.05
_KEPT: Final = 512
"""Pictures kept as they are shown: those of a rollout are asked for once a completion."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """Records with pixels, shown at one size.

    Parameters
    ----------
    data : DataSet
        Where the pixels are.
    records : sequence of Record
        Each with a question.
    template : PromptTemplate
        What the question is put in.
    side : int
        Of a square with the area of the shown pictures.
    seed : int
        Of traces for records that have none.
    """

    data: DataSet
    records: Sequence[Record]
    template: PromptTemplate
    side: int
    seed: int

    @cached_property
    def picture(self) -> Callable[[int], Image]:
        """Gives the shown picture of a record; raises `ReadError` when it cannot be read."""
        return lru_cache(maxsize=_KEPT)(
            lambda index: resized(self.data.image(self.records[index]), self.scale(index))
        )

    def __len__(self) -> int:
        return len(self.records)

    def scale(self, index: int) -> Scale:
        """Between the stored and the shown picture of a record."""
        return Scale(self.records[index].image_size, self.side)

    def messages(self, index: int) -> list[dict[str, str]]:
        """The question inside its prompt, worded as it will be when the model is served.

        The size it names is that of the shown picture, in whose pixels the answer is written.
        """
        rendered = self.template.render(self.records[index].question, *self.scale(index).shown)
        return [{"role": message.role, "content": message.content} for message in rendered]

    def truth(self, index: int) -> Truth:
        """What rewards compare with, in pixels of the shown picture."""
        record, scale = self.records[index], self.scale(index)
        return Truth(scale.corners(record.box), scale.pair(record.points), scale.shown)

    @cached_property
    def answer(self) -> Callable[[int], str]:
        """Gives the text that a supervised model learns to write for a record."""
        return cache(self._answer)

    def _answer(self, index: int) -> str:
        record, scale = self.records[index], self.scale(index)
        trace = record.trace or trace_for(
            record, self.data.image(record), self.data.mask(record), self.seed
        )
        return format_answer(trace, scale.shown_box(record.box), scale.shown_points(record.points))

    def for_rewards(self) -> Dataset:
        """Rows of GRPO: prompt, image, and the index that rewards look the truth up by."""
        return self._rows(self._reward_row)

    def for_supervision(self) -> Dataset:
        """Rows of SFT: prompt, completion and images."""
        return self._rows(self._supervised_row)

    def _reward_row(self, index: int) -> Row:
        return {"prompt": self.messages(index), "image": self.picture(index), "index": index}

    def _supervised_row(self, index: int) -> Row:
        return {
            "prompt": self.messages(index),
            "completion": [{"role": "assistant", "content": self.answer(index)}],
            "images": [self.picture(index)],
        }

    def _rows(self, row: Any) -> Dataset:
        def transform(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
            rows = [row(index) for index in batch["index"]]
            return {key: [row[key] for row in rows] for key in rows[0]}

        return Dataset.from_dict({"index": list(range(len(self)))}).with_transform(transform)


@dataclass(frozen=True)
class Sides:
    """What is trained on, what checkpoints are chosen by, and how many records were unusable."""

    train: Examples
    validation: Examples
    unusable: int


def open_sides(config: TrainConfig) -> Sides:
    """Open the two splits a run needs.

    Raises
    ------
    ReadError
        When the data cannot be read, a split is empty, or no record has a question.
    TemplateError
        When the prompt template cannot be used.
    """
    wanted = config.data
    data = open_data(Path(wanted.path))
    train = [record for record in data.records if record.split == wanted.train]
    if wanted.validation is None:
        held_out = max(1, round(_HELD_OUT * len(train)))
        divided = hold_out_groups(train, held_out, config.seed) if len(train) > 1 else train
        validation = [record for record in divided if record.split != "train"]
        train = [record for record in divided if record.split == "train"]
    else:
        validation = [record for record in data.records if record.split == wanted.validation]
    train = _asked(train, config.seed)
    validation = _asked(validation, config.seed)
    for records, split in ((train, wanted.train), (validation, wanted.validation)):
        if not records:
            raise ReadError(
                f'{wanted.path} has no record with a question in the split "{split}"; name '
                "another split, or give the records questions with: medreasoner-train data ask"
            )
    template = wanted.template

    def examples(records: Sequence[Record]) -> Examples:
        return Examples(data, records, template, wanted.side, config.seed)

    return Sides(
        examples(choose(train, wanted.limit, config.seed)),
        examples(choose(validation, config.evaluation.records, config.seed)),
        len(data.problems),
    )


def _asked(records: Sequence[Record], seed: int) -> list[Record]:
    """The records with a question of their own or of the bank; the others are left out."""
    asked = (
        record.model_copy(update={"question": record.question or question_for(record, seed)})
        for record in records
    )
    return [record for record in asked if record.question]
