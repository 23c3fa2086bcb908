"""A small Qwen2.5-VL of `medreasoner-train embedded reasoner` as a reasoner, without torch.

It has read a few thousand questions about some forty structures and nothing else, so that it
knows no medicine beyond them. What it writes is what it was trained to write: its trace can be
wrong, and it makes no diagnosis. One ships with the package; what it is worth stands in
`weights/small-qwen.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers.decoders import DecodeStream

from napari_medreasoner.core.errors import QuestionError
from napari_medreasoner.core.prompts import PromptTemplate
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import ReasonerInput
from napari_medreasoner.engines.embedded.decoder import GreedyDecoder
from napari_medreasoner.engines.embedded.graphs import SHIPPED
from napari_medreasoner.engines.embedded.patches import resized, shown_size
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.reasoners.coordinates import space_of
from napari_medreasoner.engines.reasoners.rewriting import AnswerRewriter

__all__ = ["MOST_TOKENS", "PROMPT", "SIDE", "SmallQwenReasoner", "load", "shipped"]

_NAME: Final = "small-qwen"

SIDE: Final = 224
"""Pictures are shown with about the area of a square of this side."""

PROMPT: Final = PromptTemplate(name="Short", user="$width x $height pixels.\n$question")
"""The only prompt it has ever read."""

_BEFORE: Final = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
)
_AFTER: Final = "<|im_end|>\n<|im_start|>assistant\n"
MOST_TOKENS: Final = 240
"""An answer is cut off there."""


def load(card: ModelCard, folder: Path, options: EngineOptions) -> SmallQwenReasoner:
    """Read a model from its folder; it always runs on the CPU.

    Raises
    ------
    WeightsError
        As `SmallQwenReasoner`.
    """
    return SmallQwenReasoner(_info(card.name, card.title, card.licence), folder)


def shipped() -> SmallQwenReasoner:
    """The one that ships with the package."""
    info = _info(_NAME, "Small Qwen2.5-VL (embedded)", "weights: non-commercial research")
    return SmallQwenReasoner(info, SHIPPED / _NAME)


def _info(name: str, title: str, licence: str) -> EngineInfo:
    return EngineInfo(
        name=name,
        title=title,
        description=(
            "A small vision-language model that knows the structures it was trained on and reads "
            "the question alone, not the prompt around it; its trace can be wrong."
        ),
        licence=licence,
        coordinates="pixels of the given image; it writes pixels of the resized one",
        input_window=f"as displayed, 8 bit, resized to about {SIDE} x {SIDE} pixels",
    )


class SmallQwenReasoner:
    """Reads the question and the picture; the prompt template is not read.

    Parameters
    ----------
    info : EngineInfo
        What it says of itself.
    folder : Path
        See `GreedyDecoder`.

    Raises
    ------
    WeightsError
        When a file is missing or damaged.
    """

    def __init__(self, info: EngineInfo, folder: Path) -> None:
        self.info = info
        self._decoder = GreedyDecoder(folder)

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture as it is shown to the model.

        Raises
        ------
        ImageError
            When one side is 200 times the other.
        """
        return shown_size(width, height, SIDE)

    def stream(self, request: ReasonerInput) -> Iterator[str]:
        """Yield the text token by token; see `Reasoner.stream`.

        Raises
        ------
        QuestionError
            When the question holds a word that steers the model itself.
        ImageError
            When the picture is too elongated.
        """
        height, width = request.image.shape[:2]
        shown = self.frame(width, height)
        rewriter = AnswerRewriter(
            space_of("resized pixels", (width, height), shown), "box and points"
        )
        for piece in self.pieces(request.question, resized(request.image, shown)):
            yield rewriter.feed(piece)
            if rewriter.finished:
                return
        if rest := rewriter.finish():
            yield rest

    def pieces(self, question: str, picture: NDArray[np.uint8]) -> Iterator[str]:
        """What the model writes about a picture as it is shown, in that picture's pixels."""
        height, width = picture.shape[:2]
        text = PROMPT.render(question, width, height)[-1].content
        if "<|" in text:
            raise QuestionError(
                'The question holds "<|", which begins a word that steers the model; leave it out.'
            )
        stream = DecodeStream(skip_special_tokens=True)
        prompt = f"{_BEFORE}{text}{_AFTER}"
        for token in self._decoder.tokens(prompt, picture, MOST_TOKENS):
            yield stream.step(self._decoder.tokenizer, token) or ""
