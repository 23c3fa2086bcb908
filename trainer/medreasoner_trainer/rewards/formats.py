"""Rewards for the form of a completion, whatever it says."""

from __future__ import annotations

from typing import Final

from medreasoner_trainer.rewards.variants import Variant
from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.reading import AnswerFault, Forgiven, Layout, Reading

__all__ = ["accepted", "answer_level", "think_level"]

_NOT_JSON: Final = AnswerError("The answer is not JSON.", fault=AnswerFault.NOT_JSON.value)
_NO_END: Final = AnswerError("The answer has no end.", fault=AnswerFault.NO_ANSWER.value)

_LEVELS: Final = {
    AnswerFault.NO_ANSWER: 0.0,
    AnswerFault.NOT_JSON: 0.2,
    AnswerFault.NOT_AN_OBJECT: 0.2,
    AnswerFault.REFUSED: 0.4,
    AnswerFault.MISSING_KEY: 0.4,
}
"""Of an answer with this fault in either half."""


def accepted(reading: Reading, most: Forgiven) -> Reading:
    """The reading as it stands where no more than `most` is forgiven."""
    if reading.forgiven <= most:
        return reading
    fault = _NO_END if reading.forgiven is Forgiven.NO_END else _NOT_JSON
    return reading._replace(bbox=fault, points=fault)


def think_level(reading: Reading, variant: Variant) -> float:
    """`format_think`: 0 no think block, 0.2 one that says nothing, 1 a good one.

    In the paper variant it also takes a text of exactly one think and one answer block to
    reach 1; with anything else around them it stays at 0.2.
    """
    if reading.places.thought < 0:
        return 0.0
    # A layout takes a search of the text, so only where one is asked for.
    laid_out = variant.layout is Layout.SCATTERED or reading.layout >= variant.layout
    return 1.0 if reading.trace and laid_out else 0.2


def answer_level(reading: Reading) -> float:
    """`format_seg` of an accepted reading.

    0 no answer block; 0.2 not a JSON object; 0.4 a key is missing, or box and points are
    both malformed; 0.6 one of them is; 1 four and two times two finite numbers.
    """
    bbox, points = reading.bbox, reading.points
    faults = [part.fault for part in (bbox, points) if isinstance(part, AnswerError)]
    if not faults:
        return 1.0
    by_default = 0.6 if len(faults) == 1 else 0.4
    return min(_LEVELS.get(AnswerFault(fault), by_default) for fault in faults)
