"""The shipped reasoner: fixed cases, and questions without an answer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.grounding import AnswerFault, Grounding, parse_answer
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.engines.base import Reasoner, question_for
from napari_medreasoner.engines.registry import create_reasoner
from napari_medreasoner.imaging.samples import sample_cases
from napari_medreasoner.imaging.window import default_window, to_rgb, to_uint8

CASES = {case.id: case for case in sample_cases()}
KNOWN = {
    "ct-liver": ("the liver", (41, 41, 149, 142)),
    "histology-gland": ("a gland of the bowel wall", (38, 2, 171, 187)),
    "fundus-optic-disc": ("the head of the optic nerve", (72, 303, 172, 431)),
}
"""What it takes the question to be about, rightly, and its box: the last is far off."""


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    return create_reasoner("small-qwen")


def sample(name: str) -> NDArray[np.uint8]:
    case = CASES[name]
    image = case.load()
    pixels = image.array if case.slice_index is None else image.array[case.slice_index]
    return to_rgb(to_uint8(pixels, default_window(image)))


def answer(reasoner: Reasoner, picture: NDArray[np.uint8], question: str) -> tuple[str, Grounding]:
    """Its text, and box and points; raises AnswerError where it refuses."""
    asked = question_for(reasoner, picture, question, next(iter(BUILT_IN.values())))
    text = "".join(reasoner.stream(asked))
    height, width = picture.shape[:2]
    return text, parse_answer(text).on_image(width, height)


@pytest.mark.parametrize("name", KNOWN)
def test_known_cases(reasoner: Reasoner, name: str) -> None:
    text, found = answer(reasoner, sample(name), CASES[name].question)
    structure, box = KNOWN[name]
    assert f"I take the question to be about {structure}." in text
    assert found.box is not None
    assert np.abs(np.subtract(found.box.corners, box)).max() <= 3


def test_it_reads_the_question(reasoner: Reasoner) -> None:
    """The same slice, asked for two organs, gives two boxes that are apart."""
    picture = sample("ct-left-kidney")
    (_, spleen), (_, liver) = (
        answer(reasoner, picture, question)
        for question in ("Where is the spleen?", "Which organ makes bile?")
    )
    assert spleen.box is not None
    assert liver.box is not None
    assert spleen.box.x1 > liver.box.x2


@pytest.mark.parametrize(
    "question",
    ["What is the patient's name?", "Who won the cup final?", "Where is the optic disc?"],
)
def test_what_has_no_answer_is_refused(reasoner: Reasoner, question: str) -> None:
    with pytest.raises(AnswerError, match="ask for") as refused:
        answer(reasoner, sample("ct-liver"), question)
    assert refused.value.fault == AnswerFault.REFUSED
