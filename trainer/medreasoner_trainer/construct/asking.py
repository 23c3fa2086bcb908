"""Questions and traces for the records of a data set that have none."""

from __future__ import annotations

from medreasoner_trainer.construct.questions import question_for
from medreasoner_trainer.construct.traces import trace_for
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import DataSet, Record

__all__ = ["ask_records"]


def ask_records(data: DataSet, seed: int, *, strict: bool = False) -> DataSet:
    """Fill in what is missing; what is there stays.

    A record of a category that the bank does not know stays without a question. One whose
    image or mask cannot be read, or whose mask is empty, is left out.

    Raises
    ------
    ReadError
        When strict, at the first record that would be left out.
    """
    left_out = Problems(strict=strict)
    asked = []
    for record in data.records:
        with left_out.noted(*data.origin(record)):
            asked.append(_asked(data, record, seed))
    return data.with_records(asked, left_out.found)


def _asked(data: DataSet, record: Record, seed: int) -> Record:
    question = record.question or question_for(record, seed)
    trace = record.trace or trace_for(record, data.image(record), data.mask(record), seed)
    return record.model_copy(update={"question": question, "trace": trace})
