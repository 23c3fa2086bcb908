"""Whether an exported model loads in the backend and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.grounding import Grounding, parse_answer
from napari_medreasoner.core.prompts import PromptTemplate
from napari_medreasoner.engines.base import ReasonerInput
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.registry import create_reasoner
from napari_medreasoner.imaging.samples import SampleCase, sample_cases
from napari_medreasoner.imaging.window import to_rgb, to_uint8

__all__ = ["Served", "serve_check"]

_MAX_NEW_TOKENS: Final = 768


class Served(NamedTuple):
    """The question that was asked, the text that came, and where it points."""

    question: str
    text: str
    answer: Grounding | AnswerError


def serve_check(model: Path, template: PromptTemplate, device: str = "auto") -> Served:
    """Load a model as the backend does and ask it about a picture that ships.

    Parameters
    ----------
    model : Path
        Folder that `export` wrote.
    template : PromptTemplate
        What the question is put in.
    device : str
        As in `EngineOptions`.

    Raises
    ------
    WeightsError, MissingEngineError
        When the backend cannot load it.
    """
    options = EngineOptions(device=device, max_new_tokens=_MAX_NEW_TOKENS)
    reasoner = create_reasoner(str(model), options)
    case = _flat_case()
    image = to_rgb(to_uint8(case.load().array, None))
    height, width = image.shape[:2]
    messages = template.render(case.question, width, height)
    request = ReasonerInput(image, case.question, messages, case.modality)
    text = "".join(reasoner.stream(request))
    try:
        answer: Grounding | AnswerError = parse_answer(text).on_image(width, height)
    except AnswerError as error:
        answer = error
    return Served(case.question, text, answer)


def _flat_case() -> SampleCase:
    return next(case for case in sample_cases() if case.slice_index is None)
