"""Evaluating a data set, streamed into a run's folder."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from medreasoner_trainer.construct import question_for
from medreasoner_trainer.data import DataSet, Problem, Record, open_data
from medreasoner_trainer.data.problems import error_of, reason_of
from medreasoner_trainer.evaluation.case import Case
from medreasoner_trainer.evaluation.evaluator import (
    Answerer,
    Evaluator,
    ReasonerAnswers,
    Task,
    TrueAnswers,
)
from medreasoner_trainer.evaluation.folder import RunConfig, RunFolder
from medreasoner_trainer.evaluation.statistics import Summary, summary_of
from medreasoner_trainer.evaluation.words import TRUE_PROMPTS
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.engines.registry import create_reasoner, create_segmenter
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["Outcome", "Spread", "Worker", "choose", "evaluate_run", "fingerprint"]

Outcome = Case | Problem
"""A record was scored, or could not be read."""

Spread = Callable[[Sequence[str]], Iterator[Outcome]]
"""Scores the records with these ids, in any order, and gives each outcome as it comes."""


class Worker:
    """Scores records by id, in batches of what the answerer takes.

    Parameters
    ----------
    data : DataSet
        Holds the records.
    evaluator : Evaluator
        Scores them.
    seed : int
        Of the questions for records that have none.
    """

    def __init__(self, data: DataSet, evaluator: Evaluator, seed: int) -> None:
        self._data = data
        self._evaluator = evaluator
        self._seed = seed
        self._records = {record.id: record for record in data.records}

    @classmethod
    def from_config(cls, config: RunConfig, data: DataSet | None = None) -> Worker:
        """Make the engines, and open the data unless they are given, as configured."""
        answerer: Answerer = TrueAnswers()
        if config.crm != TRUE_PROMPTS:
            template = BUILT_IN[config.prompt.capitalize()]
            answerer = ReasonerAnswers(create_reasoner(config.crm), template)
        evaluator = Evaluator(answerer, create_segmenter(config.asm), config.prompt_mode)
        data = data or open_data(Path(config.data), config.split)
        return cls(data, evaluator, config.seed)

    def work(self, ids: Sequence[str]) -> Iterator[Outcome]:
        """Score the records with these ids, in order."""
        size = self._evaluator.answerer.batch_size
        for start in range(0, len(ids), size):
            tasks: list[Task] = []
            for id_ in ids[start : start + size]:
                record = self._records[id_]
                try:
                    tasks.append(self._task(record))
                except ReadError as error:
                    yield Problem(*self._data.origin(record), reason_of(error))
            if tasks:
                yield from self._evaluator.evaluate(tasks)

    def _task(self, record: Record) -> Task:
        question = record.question or question_for(record, self._seed)
        mask = self._data.mask(record)
        if not mask.any():
            raise ReadError(f"{record.mask} is empty, so there is nothing to find")
        return Task(record, self._data.image(record), mask, question)


def choose(records: Sequence[Record], limit: int | None, seed: int) -> list[Record]:
    """Draw so many records at random, in their order; all of them when there are no more."""
    if limit is None or limit >= len(records):
        return list(records)
    drawn = np.random.default_rng(seed).choice(len(records), size=limit, replace=False)
    return [records[index] for index in sorted(drawn)]


def fingerprint(records: Iterable[Record]) -> str:
    """SHA-256 over all fields of some records."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.model_dump_json().encode() + b"\n")
    return digest.hexdigest()


def evaluate_run(
    config: RunConfig,
    ids: Sequence[str],
    spread: Spread,
    path: Path,
    problems: Sequence[Problem] = (),
    *,
    strict: bool = False,
) -> tuple[Summary, list[Problem]]:
    """Score what is not scored yet; write `summary.json` and `problems.jsonl`.

    Parameters
    ----------
    config : RunConfig
        Of the run.
    ids : sequence of str
        Of all its records.
    spread : Spread
        Does the work.
    path : Path
        The run's folder; a run begun there is gone on with.
    problems : sequence of Problem
        Records that were left out already.
    strict : bool
        Stop at a record whose pixels cannot be read.

    Returns
    -------
    Summary, list of Problem
        Also of all records left out, those of `problems` first.

    Raises
    ------
    SettingsError, ExportError
        As `RunFolder.opened`.
    ReadError
        When strict, or when the cases written before are damaged.
    InputError
        When no case came of it.
    """
    folder = RunFolder(path)
    left_out = list(problems)
    with folder.opened(config) as writer:
        done = {case.id for case in folder.cases()}
        todo = [id_ for id_ in ids if id_ not in done]
        for outcome in _shown(spread(todo), len(done), len(ids)):
            if isinstance(outcome, Case):
                writer.add(outcome)
            elif strict:
                raise error_of(outcome)
            else:
                left_out.append(outcome)
        folder.write_problems(left_out)
        summary = summary_of(folder)
        write_text(path / "summary.json", summary.model_dump_json(indent=2) + "\n")
    return summary, left_out


def _shown(outcomes: Iterator[Outcome], done: int, total: int) -> Iterator[Outcome]:
    """Pass outcomes on, moving a progress bar on standard error where that is a terminal."""
    columns = ("Evaluating", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", completed=done, total=total)
        for outcome in outcomes:
            bar.advance(task)
            yield outcome
