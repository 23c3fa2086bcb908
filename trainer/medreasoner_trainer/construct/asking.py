"""Questions and traces for the records of a data set that have none."""

from __future__ import annotations

from medreasoner_trainer.construct.questions import question_for
from medreasoner_trainer.construct.traces import trace_for
from medreasoner_trainer.data.record import DataSet, Record

__all__ = ["ask_records"]


def ask_records(data: DataSet, seed: int) -> list[Record]:
    """Fill in what is missing; what is there stays.

    A record of a category that the bank does not know stays without a question.

    Raises
    ------
    ReadError
        When an image or mask cannot be read.
    ImageError
        When a mask is empty.
    """
    return [_asked(data, record, seed) for record in data.records]


def _asked(data: DataSet, record: Record, seed: int) -> Record:
    question = record.question or question_for(record, seed)
    trace = record.trace or trace_for(record, data.image(record), data.mask(record), seed)
    return record.model_copy(update={"question": question, "trace": trace})
