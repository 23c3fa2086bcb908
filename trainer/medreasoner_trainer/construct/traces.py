"""Reasoning made of what can be measured: never a name, a diagnosis or a guess."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from medreasoner_trainer.construct.appearance import Appearance, measure
from medreasoner_trainer.construct.chance import chosen
from medreasoner_trainer.data.record import Record

__all__ = ["load_phrases", "short_trace_for", "trace_for"]

_THIRD: Final = 1 / 3
_AREAS: Final = ((0.01, "tiny"), (0.05, "small"), (0.2, "medium"), (1.1, "large"))
"""Upper ends of shares of the image, and what such a target is called."""

_ROUND: Final = 1.35
_LONG: Final = 2.2
_FLAT_TILT: Final = 30.0
_STEEP_TILT: Final = 60.0
_CONVEX: Final = 0.9
_EQUAL: Final = 6.0
_CLEAR: Final = 30.0
_ORDERS: Final = (
    ("opening", "size", "shape", "brightness", "closing"),
    ("opening", "brightness", "shape", "closing"),
    ("opening", "size", "brightness", "closing"),
    ("opening", "shape", "size", "closing"),
    ("opening", "shape", "closing"),
    ("opening", "brightness", "closing"),
)
"""Topics of a trace, in the order in which they come."""


def trace_for(
    record: Record,
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    seed: int,
) -> str:
    """Write two to five sentences that lead to the target and end by pointing at it.

    Parameters
    ----------
    record : Record
        Its modality is named; its category is not.
    image : ndarray of uint8, shape (row, column, 3)
        The record's image.
    mask : ndarray of bool, shape (row, column)
        The record's mask.
    seed : int
        Another seed gives other words for the same facts.

    Raises
    ------
    ImageError
        When the mask is empty.
    """
    facts = _facts(measure(image, mask))
    words = {"modality": record.modality or "medical", "place": facts["place"]}
    phrases = load_phrases()
    sentences = []
    for topic in chosen(_ORDERS, seed, record.id, "order"):
        options = phrases[topic].get(facts.get(topic, "any"), ())
        if options:
            sentences.append(chosen(options, seed, record.id, topic).format_map(words))
    return " ".join(sentences)


def short_trace_for(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """One sentence about place and size, always in the same words.

    Parameters
    ----------
    image, mask
        As for `trace_for`.

    Raises
    ------
    ImageError
        When the mask is empty.
    """
    facts = _facts(measure(image, mask))
    return f"It lies in the {facts['place']} and is {facts['size']}."


@cache
def load_phrases() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Sentences by topic and finding."""
    file = files("medreasoner_trainer.construct") / "phrases.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _facts(seen: Appearance) -> dict[str, str]:
    facts = {
        "place": _place(*seen.centre),
        "size": next(name for end, name in _AREAS if seen.area < end),
        "shape": _shape(seen),
    }
    if seen.contrast is not None:
        facts["brightness"] = _brightness(seen.contrast)
    return facts


def _place(x: float, y: float) -> str:
    """Third of the image in words, as the image is shown."""
    across = ("left", "centre", "right")[min(int(x / _THIRD), 2)]
    down = ("upper", "middle", "lower")[min(int(y / _THIRD), 2)]
    if across == "centre":
        return "centre" if down == "middle" else f"{down} middle"
    return f"{across} part" if down == "middle" else f"{down} {across}"


def _shape(seen: Appearance) -> str:
    if seen.elongation >= _LONG:
        if seen.tilt < _FLAT_TILT:
            return "long_flat"
        return "long_upright" if seen.tilt > _STEEP_TILT else "long_oblique"
    kind = "round" if seen.elongation < _ROUND else "oval"
    return kind if seen.solidity >= _CONVEX else f"{kind}_irregular"


def _brightness(contrast: float) -> str:
    if abs(contrast) < _EQUAL:
        return "equal"
    degree = "much" if abs(contrast) >= _CLEAR else "slightly"
    return f"{degree}_{'brighter' if contrast > 0 else 'darker'}"
