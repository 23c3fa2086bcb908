"""One record at a time: what is asked, read, segmented and scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import pytest

from medreasoner_trainer.data import Record, open_data
from medreasoner_trainer.evaluation.case import METRICS, REASONER_FAILED, SEGMENTER_FAILED, Case
from medreasoner_trainer.evaluation.evaluator import (
    Evaluator,
    ReasonerAnswers,
    Task,
    TrueAnswers,
)
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.grounding import format_answer, format_refusal
from napari_medreasoner.core.metrics import dice
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.engines.base import ReasonerInput, Segmentation
from napari_medreasoner.engines.embedded.classical import ClassicalSegmenter
from tests.fakes import FakeSegmenter, info
from tests.trainer.small_data import write_small_data


class Told:
    """Answers every question with the same pieces of text."""

    info = info("told")

    def __init__(self, pieces: Sequence[str] | Iterator[str]) -> None:
        self.pieces = pieces
        self.requests: list[ReasonerInput] = []

    def stream(self, request: ReasonerInput) -> Iterator[str]:
        self.requests.append(request)
        yield from self.pieces


class Batched(Told):
    """Takes four at a time; the word "crash" in a question brings the whole batch down."""

    batch_size = 4

    def __init__(self, text: str, written: int | None = None) -> None:
        super().__init__([text])
        self.sizes: list[int] = []
        self.written = written

    def answer_batch(self, requests: Sequence[ReasonerInput]) -> list[str]:
        self.sizes.append(len(requests))
        if any("crash" in request.question for request in requests):
            raise RuntimeError("out of memory")
        return ["".join(self.pieces)] * (self.written or len(requests))


class NoPoints(ClassicalSegmenter):
    """Cannot do without a box."""

    def segment(self, embedding: object, prompts: Prompts) -> Segmentation:
        if prompts.box is None:
            raise RuntimeError("a box is needed")
        return super().segment(embedding, prompts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """One task for each sample image."""
    folder: Path = write_small_data(tmp_path_factory.mktemp("evaluator") / "data")
    data = open_data(folder, "test")
    return [
        Task(record, data.image(record), data.mask(record), record.question or "Where?")
        for record in data.records[::4]
    ]


def answers(reasoner: Told) -> ReasonerAnswers:
    return ReasonerAnswers(reasoner, BUILT_IN["Reasoning"])


def case_of(task: Task, text: str) -> Case:
    (case,) = Evaluator(answers(Told([text])), ClassicalSegmenter()).evaluate([task])
    return case


def answer_of(record: Record, *keys: str) -> str:
    text = format_answer("looked", record.box, record.points)
    fields = json.loads(text.partition("<answer>")[2].removesuffix("</answer>"))
    return f"<answer>{json.dumps({key: fields[key] for key in keys})}</answer>"


REFUSALS = [
    "I'm sorry, I cannot assist with that.",
    "I\u2019m unable to provide a diagnosis from this image.",
    "<think>The request is medical.</think>I can't help with interpreting scans.",
    "<think>a</think><answer>As an AI, I do not read scans.</answer>",
    '<think>a</think><answer>{"error": "I cannot determine the region."}</answer>',
    '{"bbox": null}\nI am not able to locate it.',
]
NO_REFUSALS = [
    "",
    "<think>I cannot see the lower border, so I go by the upper one, which",
    "<think>I'm sorry, I cannot find it</think><answer>[1, 2]</answer>",
    "The liver is the large organ on the left of the image.",
    "<think>a</think><answer>{'bbox': [1, 2</answer>",
    "It cannot be missed: the bright disc.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_in_plain_words_is_one(tasks: list[Task], text: str) -> None:
    case = case_of(tasks[0], text)
    assert (case.refused, case.parsed, case.fault) == (True, False, "refused")
    assert case.reason in text.replace("\u2019", "'")
    assert len(case.reason) > 10


@pytest.mark.parametrize("text", NO_REFUSALS)
def test_what_only_cannot_be_read_is_no_refusal(tasks: list[Task], text: str) -> None:
    case = case_of(tasks[0], text)
    assert (case.refused, case.parsed) == (False, False)
    assert case.fault not in ("", "refused")


def test_an_apology_with_an_answer_is_an_answer(tasks: list[Task]) -> None:
    text = "I'm sorry, I cannot be sure. " + answer_of(tasks[0].record, "bbox")
    case = case_of(tasks[0], text)
    assert (case.refused, case.parsed, case.iou) == (False, True, 1)


def test_a_picture_with_several_targets_is_embedded_once(tasks: list[Task]) -> None:
    segmenter = FakeSegmenter()
    twice = [task for task in tasks for _ in range(2)]
    cases = Evaluator(TrueAnswers(), segmenter).evaluate(twice)
    assert segmenter.calls.count("set_image") == len(tasks)
    assert [case.dice_box for case in cases[::2]] == [case.dice_box for case in cases[1::2]]


def test_true_prompts_score_the_segmenter_alone(tasks: list[Task]) -> None:
    segmenter = ClassicalSegmenter()
    for task, case in zip(tasks, Evaluator(TrueAnswers(), segmenter).evaluate(tasks), strict=True):
        record = task.record
        assert case.iou == case.pdice == pytest.approx(1)
        assert case.pdice_released == pytest.approx(2, abs=1e-4)
        embedding = segmenter.set_image(task.image)
        alone = segmenter.segment(embedding, Prompts(box=record.box, points=record.points)).mask
        assert case.dice_both == dice(alone, task.mask) > 0.7
        assert case.mask is not None
        assert (case.mask.unpack() == alone).all()
        assert (case.fault, case.reason, case.parsed) == ("", "", True)
        assert (case.group, case.modality) == (record.group, record.modality)


def test_both_engines_see_rgb_and_the_reasoner_the_prompt(tasks: list[Task]) -> None:
    reasoner, segmenter = Told(["nothing"]), FakeSegmenter()
    Evaluator(ReasonerAnswers(reasoner, BUILT_IN["Direct"]), segmenter).evaluate(tasks)
    for task, request in zip(tasks, reasoner.requests, strict=True):
        assert request.image is task.image
        assert request.image.shape == (*task.mask.shape, 3)
        assert request.modality == task.record.modality
        assert request.question in request.messages[-1].content
        assert "<think>" not in request.messages[-1].content
    assert not segmenter.calls, "there was nothing to segment"


def test_a_refusal_is_no_parse_failure(tasks: list[Task]) -> None:
    refused = case_of(tasks[0], format_refusal("looked", "I would rather not."))
    assert (refused.refused, refused.parsed, refused.fault) == (True, False, "refused")
    assert refused.reason == "I would rather not."
    garbage = case_of(tasks[0], "the disc is in the middle")
    assert (garbage.refused, garbage.parsed, garbage.fault) == (False, False, "no_answer")
    for case in (refused, garbage):
        assert all(getattr(case, name) == 0 for name in METRICS)


def test_a_box_without_points_keeps_what_the_box_earns(tasks: list[Task]) -> None:
    case = case_of(tasks[0], answer_of(tasks[0].record, "bbox"))
    assert (case.parsed, case.fault, case.points) == (True, "missing_key", None)
    assert case.iou == 1
    assert case.dice_box == case.dice_both > 0.7
    assert case.pdice == case.pdice_released == case.dice_points == 0


def test_points_without_a_box_keep_what_the_points_earn(tasks: list[Task]) -> None:
    case = case_of(tasks[0], answer_of(tasks[0].record, "points_1", "points_2"))
    assert (case.parsed, case.fault, case.bbox) == (True, "missing_key", None)
    assert case.pdice == pytest.approx(1)
    assert case.dice_points == case.dice_both > 0
    assert case.iou == case.dice_box == 0


def test_a_prompt_mode_that_fails_leaves_the_others(tasks: list[Task]) -> None:
    (case,) = Evaluator(TrueAnswers(), NoPoints(), "points").evaluate(tasks[:1])
    assert case.fault == SEGMENTER_FAILED
    assert case.reason == "The segmenter, given points, failed (RuntimeError)."
    assert case.dice_points == 0 < min(case.dice_box, case.dice_both)
    assert case.mask is None
    assert case.parsed


def test_a_segmenter_that_fails_on_the_image_leaves_the_answer(tasks: list[Task]) -> None:
    segmenter = FakeSegmenter()
    segmenter.fault = RuntimeError("no memory")
    (case,) = Evaluator(TrueAnswers(), segmenter).evaluate(tasks[:1])
    assert (case.fault, case.iou, case.dice_both) == (SEGMENTER_FAILED, 1, 0)


def test_a_reasoner_answers_in_batches_where_it_can(tasks: list[Task]) -> None:
    reasoner = Batched("nothing")
    evaluator = Evaluator(answers(reasoner), FakeSegmenter())
    assert evaluator.answerer.batch_size == 4
    assert [case.fault for case in evaluator.evaluate(tasks)] == ["no_answer"] * 3
    assert reasoner.sizes == [3]


def test_one_question_that_fails_does_not_cost_its_batch(tasks: list[Task]) -> None:
    bad = tasks[1]._replace(question="crash")
    evaluator = Evaluator(answers(Batched("nothing")), FakeSegmenter())
    cases = evaluator.evaluate([tasks[0], bad, tasks[2]])
    assert [case.fault for case in cases] == ["no_answer", REASONER_FAILED, "no_answer"]
    assert cases[1].reason == "The reasoner failed (RuntimeError)."
    assert not cases[1].refused


def test_a_batch_of_the_wrong_length_is_a_fault_of_the_reasoner(tasks: list[Task]) -> None:
    evaluator = Evaluator(answers(Batched("nothing", written=2)), FakeSegmenter())
    assert {case.fault for case in evaluator.evaluate(tasks)} == {REASONER_FAILED}


def test_a_reasoner_without_end_is_stopped(tasks: list[Task]) -> None:
    evaluator = Evaluator(answers(Told(repeat("again and again "))), FakeSegmenter())
    (case,) = evaluator.evaluate(tasks[:1])
    assert case.fault == "no_answer"
    assert len(case.text) == 20_000
