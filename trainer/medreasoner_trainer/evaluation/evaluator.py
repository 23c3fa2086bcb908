"""From a record to a case: ask, read the answer, segment, score."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medreasoner_trainer.data.record import Record
from medreasoner_trainer.evaluation.case import (
    REASONER_FAILED,
    SEGMENTER_FAILED,
    Case,
)
from medreasoner_trainer.evaluation.declining import declined
from medreasoner_trainer.evaluation.words import PROMPT_MODES, PromptMode
from napari_medreasoner.core.errors import AnswerError, EngineError, MedReasonerError
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.grounding import AnswerFault, Halves, format_answer, parse_halves
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.metrics import box_iou, dice, points_dice, points_dice_released
from napari_medreasoner.core.prompts import PromptTemplate
from napari_medreasoner.engines.base import Reasoner, ReasonerInput, Segmenter, question_for

__all__ = ["Answerer", "BatchReasoner", "Evaluator", "ReasonerAnswers", "Task", "TrueAnswers"]

logger = logging.getLogger(__name__)

_MAX_TEXT: Final = 200_000
"""Characters after which a reasoner that never ends is stopped."""

_KEPT_TEXT: Final = 20_000
_KEPT_WORDS: Final = 300


class Task(NamedTuple):
    """A record with its pixels (RGB and mask, as a `DataSet` gives them) and its question."""

    record: Record
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    question: str


class Answerer(Protocol):
    """What writes the answers that are scored.

    Attributes
    ----------
    batch_size : int
        How many tasks it takes at a time.
    """

    batch_size: int

    def answer(self, tasks: Sequence[Task]) -> list[str]:
        """Write one text for each task."""
        ...


@runtime_checkable
class BatchReasoner(Reasoner, Protocol):
    """A reasoner that can answer several questions at once.

    Attributes
    ----------
    batch_size : int
        How many it takes at a time.
    """

    batch_size: int

    def answer_batch(self, requests: Sequence[ReasonerInput]) -> list[str]:
        """Whole texts, one for each request, decoded greedily."""
        ...


class TrueAnswers:
    """Answers with the record's own box and points, so that a segmenter is scored alone."""

    batch_size: int = 1

    def answer(self, tasks: Sequence[Task]) -> list[str]:
        """Write the truth in a model's words."""
        return [format_answer("", task.record.box, task.record.points) for task in tasks]


class ReasonerAnswers:
    """Puts each question to a reasoner inside a prompt template.

    Parameters
    ----------
    reasoner : Reasoner
        Asked in batches when it is a `BatchReasoner`.
    template : PromptTemplate
        The prompt.
    """

    def __init__(self, reasoner: Reasoner, template: PromptTemplate) -> None:
        self._reasoner = reasoner
        self._template = template
        self.batch_size = reasoner.batch_size if isinstance(reasoner, BatchReasoner) else 1

    def answer(self, tasks: Sequence[Task]) -> list[str]:
        """Ask, and wait for the whole texts.

        Raises
        ------
        EngineError
            When a batch comes back with fewer or more texts than it had questions.
        """
        requests = [self._request(task) for task in tasks]
        if not isinstance(self._reasoner, BatchReasoner):
            return [_joined(self._reasoner.stream(request)) for request in requests]
        texts = self._reasoner.answer_batch(requests)
        if len(texts) != len(tasks):
            raise EngineError(
                f"The reasoner wrote {len(texts)} answers to {len(tasks)} questions; report this "
                "to its authors."
            )
        return texts

    def _request(self, task: Task) -> ReasonerInput:
        return question_for(
            self._reasoner, task.image, task.question, self._template, task.record.modality
        )


def _joined(pieces: Iterable[str]) -> str:
    text: list[str] = []
    length = 0
    for piece in pieces:
        text.append(piece)
        length += len(piece)
        if length > _MAX_TEXT:
            break
    return "".join(text)


@dataclass(frozen=True)
class Evaluator:
    """Scores what an answerer and a segmenter make of tasks.

    Parameters
    ----------
    answerer : Answerer
        The CRM, or the truth.
    segmenter : Segmenter
        The ASM.
    prompt_mode : PromptMode
        Of which prompts the mask is kept; all three are always scored.
    """

    answerer: Answerer
    segmenter: Segmenter
    prompt_mode: PromptMode = "both"
    _embedded: _Embedded = field(default_factory=lambda: _Embedded(), init=False, repr=False)

    def evaluate(self, tasks: Sequence[Task]) -> list[Case]:
        """Score tasks, in order; a fault of an engine is a case that says so, not an error."""
        start = perf_counter()
        try:
            texts = self.answerer.answer(tasks)
        except Exception as error:  # an engine is foreign code: its fault is told, not hidden
            logger.exception("the reasoner failed on %s", [task.record.id for task in tasks])
            if len(tasks) > 1:  # one bad question must not cost the others of its batch
                return [case for task in tasks for case in self.evaluate([task])]
            reason = _told("reasoner", error)
            seconds = perf_counter() - start
            return [_case(tasks[0], fault=REASONER_FAILED, reason=reason, seconds=seconds)]
        seconds = (perf_counter() - start) / len(tasks)
        return [self.score(*pair, seconds) for pair in zip(tasks, texts, strict=True)]

    def score(self, task: Task, text: str, seconds: float = 0.0) -> Case:
        """Score the text of one answer; `seconds` is what it took to write."""
        start = perf_counter()
        height, width = task.mask.shape
        halves = _halves(text, width, height)
        segmented = _Segmented()
        self._segment(task, halves, segmented)
        fault = SEGMENTER_FAILED if segmented.faults else ""
        if halves.error:
            fault = halves.error.fault
            segmented.faults.insert(0, str(halves.error))
        return _case(
            task,
            text=text[:_KEPT_TEXT],
            parsed=halves.box is not None or halves.points is not None,
            refused=fault == AnswerFault.REFUSED,
            fault=fault,
            reason=" ".join(segmented.faults),
            bbox=halves.box.corners if halves.box else None,
            points=[(point.x, point.y) for point in halves.points] if halves.points else None,
            mask=segmented.mask,
            seconds=seconds + perf_counter() - start,
            **_overlaps(task.record, halves),
            **segmented.scores,
        )

    def _segment(self, task: Task, halves: Halves, result: _Segmented) -> None:
        """Run every mode that has a prompt; one that fails leaves the others as they are."""
        wanted = {mode: _prompts(mode, halves) for mode in PROMPT_MODES}
        wanted = {mode: prompts for mode, prompts in wanted.items() if not prompts.is_empty}
        if not wanted:
            return
        try:
            embedding = self._embedded.by(self.segmenter, task.image)
        except Exception as error:
            logger.exception("the segmenter failed on the image of %s", task.record.id)
            result.faults.append(_told("segmenter", error))
            return
        for mode, prompts in wanted.items():
            try:
                mask = self.segmenter.segment(embedding, prompts).mask
                result.scores[f"dice_{mode}"] = dice(mask, task.mask)
            except Exception as error:
                logger.exception("the segmenter failed on %s, given %s", task.record.id, mode)
                result.faults.append(_told(f"segmenter, given {mode},", error))
                continue
            if mode == self.prompt_mode:
                result.mask = PackedMask.pack(mask)


def _halves(text: str, width: int, height: int) -> Halves:
    """Box and points of a text; one that declines in plain words is a refusal too."""
    halves = parse_halves(text, width, height)
    if not halves.error or halves.box or halves.points:
        return halves
    words = "" if halves.error.fault == AnswerFault.REFUSED else declined(text)
    if not words:
        return halves
    return Halves(error=AnswerError(words[:_KEPT_WORDS], fault=AnswerFault.REFUSED.value))


class _Embedded:
    """The last picture a segmenter was given; records of one picture mostly follow each other."""

    def __init__(self) -> None:
        self._image: NDArray[np.uint8] | None = None
        self._embedding: Any = None

    def by(self, segmenter: Segmenter, image: NDArray[np.uint8]) -> Any:
        if self._image is None or not np.array_equal(self._image, image):
            self._embedding, self._image = segmenter.set_image(image), image
        return self._embedding


@dataclass
class _Segmented:
    """What came of the prompt modes; a mode that failed has no score."""

    scores: dict[str, float] = field(default_factory=dict)
    mask: PackedMask | None = None
    faults: list[str] = field(default_factory=list)


def _told(what: str, error: Exception) -> str:
    detail = str(error) if isinstance(error, MedReasonerError) else type(error).__name__
    return f"The {what} failed ({detail})."


def _prompts(mode: PromptMode, halves: Halves) -> Prompts:
    """What a mode gives the segmenter; "both" is all there is."""
    return Prompts(
        box=None if mode == "points" else halves.box,
        points=() if mode == "box" else halves.points or (),
    )


def _overlaps(record: Record, halves: Halves) -> dict[str, float]:
    found: dict[str, float] = {}
    if halves.box:
        found["iou"] = box_iou(halves.box, record.box)
    if halves.points:
        found["pdice"] = points_dice(halves.points, record.points)
        found["pdice_released"] = points_dice_released(halves.points, record.points)
    return found


def _case(task: Task, **found: Any) -> Case:
    record = task.record
    return Case(
        id=record.id,
        group=record.group or record.image,
        modality=record.modality,
        supercategory=record.supercategory,
        category=record.category,
        question=task.question,
        **found,
    )
