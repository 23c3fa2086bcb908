"""Questions and reasoning traces, made without a model."""

from medreasoner_trainer.construct.asking import ask_records
from medreasoner_trainer.construct.questions import question_for
from medreasoner_trainer.construct.traces import trace_for

__all__ = ["ask_records", "question_for", "trace_for"]
