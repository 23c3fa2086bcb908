"""The `prior` reasoner (CRM): text similarity, training statistics and image evidence.

No language model and no weights to download. The trace says what was computed and nothing
else: it is not a reading of the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from napari_medreasoner.core.grounding import format_answer, format_refusal
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import ReasonerInput
from napari_medreasoner.engines.embedded.catalogue import Catalogue, Match
from napari_medreasoner.engines.embedded.placing import Placed, place
from napari_medreasoner.engines.embedded.priors import StructurePrior, load_priors

__all__ = ["PriorReasoner"]

_LEAST_SIMILARITY: Final = 0.2
"""Sentences about something else seldom reach it, even if they share a word ("cup") with a cue;
questions about a structure seldom stay below it."""

_CLEAR_MARGIN: Final = 0.08
_THIN_EVIDENCE: Final = 0.4
_OPENING, _CLOSING = "<think>", "</think>"


class PriorReasoner:
    """Answers with the place where training images and this image's grey levels agree."""

    info = EngineInfo(
        name="prior",
        title="Prior (no language model)",
        description=(
            "Matches the question to a structure by its words and boxes the place where "
            "training images had it; does not understand the image and makes no diagnosis."
        ),
        licence="BSD-3-Clause",
        coordinates="pixels of the given image",
        input_window="the displayed grey window, 8 bit, shrunk to 64 pixels",
    )

    def __init__(self) -> None:
        self._structures = load_priors().structures
        self._catalogue = Catalogue(
            {name: frozenset(found) for name, found in self._structures.items()}
        )

    def stream(self, request: ReasonerInput) -> Iterator[str]:
        """Yield trace and answer (or refusal), in pieces of about a word.

        The words are matched, and the match told, before the image is looked at.
        """
        modality = self._catalogue.modality(request.modality)
        best, runner_up = self._catalogue.match(request.question, modality)[:2]
        if best.similarity < _LEAST_SIMILARITY:
            yield from _pieces(_refuse_unmatched(best))
            return
        told = _tell_match(best, runner_up)
        known = self._structures.get(best.name)
        if known is None:
            yield from _pieces(_refuse_unknown(told, best))
            return
        yield from _pieces(f"{_OPENING}{told}")
        used = modality if modality in known else max(known, key=lambda name: known[name].images)
        prior = known[used]
        placed = place(request.image, prior, same_modality=modality in ("", used))
        rest = _tell_place(best.name, used, prior, placed, request.image.shape)
        if modality not in ("", used):
            rest = _tell_other_modality(best.name, modality, used) + rest
        yield from _pieces(rest)
        tail = format_answer("", placed.box, placed.points)
        yield tail.removeprefix(_OPENING)


def _pieces(text: str) -> Iterator[str]:
    yield from re.findall(r"\S+\s*", text)


def _refuse_unmatched(best: Match) -> str:
    return format_refusal(
        "The words were compared with the structures this reasoner knows. The nearest is the "
        f"{best.name}, with a similarity of only {best.similarity:.2f} of 1.",
        "The question does not resemble any structure this reasoner knows; ask about a "
        "structure in the image, or choose another reasoner.",
    )


def _refuse_unknown(told: str, best: Match) -> str:
    return format_refusal(
        told.rstrip(),
        f"The question seems to ask about the {best.name}, of which this reasoner has no training "
        "images; draw a box by hand, or choose another reasoner.",
    )


def _tell_match(best: Match, runner_up: Match) -> str:
    text = (
        f"The words of the question are most similar to those kept for the {best.name} "
        f"(similarity {best.similarity:.2f} of 1); next comes the {runner_up.name} "
        f"({runner_up.similarity:.2f}). "
    )
    if best.similarity - runner_up.similarity < _CLEAR_MARGIN:
        text += "The two are close, so the wrong structure may have been taken. "
    return text


def _tell_other_modality(name: str, modality: str, used: str) -> str:
    return (
        f"Training had no {modality} image with the {name}, so only its mean place in {used} "
        "images is used; take the box as a rough guess. "
    )


def _tell_place(
    name: str, modality: str, prior: StructurePrior, placed: Placed, shape: tuple[int, ...]
) -> str:
    count = f"{prior.images} training image{'s' if prior.images > 1 else ''}"
    text = (
        f"From {count} ({modality}), the {name} is expected in the box "
        f"{list(placed.expected.corners)}, its centre give or take "
        f"{round(prior.deviation[0] * shape[1])} pixels across and "
        f"{round(prior.deviation[1] * shape[0])} down. "
    )
    if placed.evidence is None:
        return f"{text}The grey levels of this image were not used to refine it."
    text += f"{_tell_strategy(placed)} {_tell_shift(placed)} "
    text += f"Inside it the mean probability of the {name}, pixel by pixel, is "
    text += f"{placed.evidence:.2f}. "
    if placed.evidence < _THIN_EVIDENCE:
        text += "That is little: the structure may be elsewhere or not in the image. "
    if prior.overlap is not None:
        text += (
            "In training images left out of the fit, boxes found so overlapped the true ones "
            f"by {prior.overlap:.2f} of 1 on average."
        )
    return text.rstrip()


def _tell_strategy(placed: Placed) -> str:
    kind, _, level = placed.strategy.partition(" ")
    region = "the region around the most probable pixel, by grey levels and position, in which "
    region += f"the probability is above {level} of its highest value"
    how = {
        "expected": "This box is kept, because for this structure grey levels did not help.",
        "region": f"The box encloses {region}.",
        "halfway": f"The box lies halfway between that and {region}.",
        "consensus": (
            "The box is the median of that one and of the regions around the most probable "
            "pixel, by grey levels and position, at four levels of probability."
        ),
    }
    return how[kind]


def _tell_shift(placed: Placed) -> str:
    old, new = placed.expected, placed.box
    right = round((new.x1 + new.x2 - old.x1 - old.x2) / 2)
    down = round((new.y1 + new.y2 - old.y1 - old.y2) / 2)
    return (
        f"It is {list(new.corners)}: its centre moved {abs(right)} pixels "
        f"{'right' if right >= 0 else 'left'} and {abs(down)} "
        f"{'down' if down >= 0 else 'up'}, and it overlaps the expected box by "
        f"{placed.agreement:.2f} of 1."
    )
