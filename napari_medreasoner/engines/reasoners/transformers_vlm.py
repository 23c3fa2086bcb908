"""Vision-language models run by transformers: Qwen2.5-VL, InternVL, Gemma 3 and their like."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers.decoders import DecodeStream
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from napari_medreasoner.core.errors import ImageError, MemoryShortageError, WeightsError
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import ReasonerInput
from napari_medreasoner.engines.device import device_name
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.models.folder import Manifest
from napari_medreasoner.engines.models.weights import origin_of
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.reasoners.conversation import Conversations
from napari_medreasoner.engines.reasoners.coordinates import (
    DESCRIPTIONS,
    INSTRUCTIONS,
    Space,
    space_of,
)
from napari_medreasoner.engines.reasoners.decoding import tokens_of
from napari_medreasoner.engines.reasoners.loading import Loaded, load_model
from napari_medreasoner.engines.reasoners.rewriting import AnswerRewriter

__all__ = ["TransformersReasoner", "load"]

_RESIZING: Final = ("qwen2_5_vl", "qwen2_vl")
"""Families whose processor resizes a picture to sides that they then count in pixels."""

_BATCH: Final = {"cuda": 8}
"""Questions that are answered at a time when many are waiting; elsewhere it gains nothing."""


def load(card: ModelCard, folder: Path, options: EngineOptions) -> TransformersReasoner:
    """Read a model from its folder.

    Raises
    ------
    WeightsError, SettingsError, MissingEngineError, MemoryShortageError
        See `load_model`.
    """
    if card.coordinates == "resized pixels" and card.family not in _RESIZING:
        raise WeightsError(
            f'The model "{card.name}" is said to write pixels of the resized picture, which '
            f"models of the family {card.family} do not; correct its manifest."
        )
    loaded = load_model(folder, card.family, options)
    return TransformersReasoner(card, loaded, _info(card, folder, loaded.device))


def _info(card: ModelCard, folder: Path, device: torch.device) -> EngineInfo:
    manifest = Manifest.read(folder) or Manifest()
    weights = min(folder.glob("*.safetensors"))
    return EngineInfo(
        name=card.name,
        title=card.title,
        description=card.description,
        licence=card.licence,
        coordinates=DESCRIPTIONS[card.coordinates],
        input_window=f"as displayed; {card.input_limits}" if card.input_limits else "as displayed",
        weights=origin_of(manifest.repository, manifest.revision, weights),
        device=device_name(device),
    )


class TransformersReasoner:
    """A vision-language model that writes a trace and an answer, token by token.

    Parameters
    ----------
    card : ModelCard
        What is known of the model.
    loaded : Loaded
        Model and processor.
    info : EngineInfo
        What it says of itself.

    Attributes
    ----------
    batch_size : int
        How many questions `answer_batch` takes at a time.
    """

    def __init__(self, card: ModelCard, loaded: Loaded, info: EngineInfo) -> None:
        self.info = info
        self._card = card
        self._model, self._processor, self._device = loaded
        self._conversations = Conversations(self._processor, INSTRUCTIONS.get(card.coordinates, ""))
        self.batch_size = _BATCH.get(self._device.type, 1)

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture as this model counts them, for prompts.

        Pixels where it counts in fractions: an instruction is added to those prompts.

        Raises
        ------
        ImageError
            When the picture is too elongated for the model.
        """
        if self._card.coordinates == "norm1":
            return width, height
        return self._space(width, height).size

    def stream(self, request: ReasonerInput) -> Generator[str]:
        """Yield the text piece by piece; see `Reasoner.stream`.

        Each token is computed when it is asked for, on the thread that asks; pieces are empty while
        the answer is held back. The text ends
        with the answer block, or is cut at the longest answer allowed.

        Raises
        ------
        QuestionError, ImageError
            See `Conversations.inputs`.
        MemoryShortageError
            When the device's memory does not suffice.
        """
        height, width = request.image.shape[:2]
        rewriter = AnswerRewriter(self._space(width, height), self._card.answers)
        with self._memory_watched():
            inputs = self._inputs([request])
            with closing(self._pieces(inputs)) as pieces:
                for piece in pieces:
                    yield rewriter.feed(piece)
                    if rewriter.finished:
                        return
        if shown := rewriter.finish():
            yield shown

    def answer_batch(self, requests: Sequence[ReasonerInput]) -> list[str]:
        """Whole texts, one for each request, as `stream` would give them up to rounding.

        Raises
        ------
        QuestionError, ImageError, MemoryShortageError
            As for `stream`.
        """
        with self._memory_watched():
            inputs = self._inputs(requests)
            made = self._model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(made, skip_special_tokens=True)
        return [self._whole(*pair) for pair in zip(requests, texts, strict=True)]

    def _whole(self, request: ReasonerInput, text: str) -> str:
        height, width = request.image.shape[:2]
        rewriter = AnswerRewriter(self._space(width, height), self._card.answers)
        shown = rewriter.feed(text)
        return shown if rewriter.finished else shown + rewriter.finish()

    def _inputs(self, requests: Sequence[ReasonerInput]) -> Any:
        inputs: Any = self._conversations.inputs(requests)
        return inputs.to(self._device, self._model.dtype)

    def _pieces(self, inputs: Any) -> Generator[str]:
        """The text of the tokens, a character that takes several held back until it is whole."""
        tokenizer = self._processor.tokenizer
        decoder = DecodeStream(skip_special_tokens=True)
        tokens: list[int] = []
        length = 0
        with closing(tokens_of(self._model, inputs)) as made:
            for token in made:
                tokens.append(token)
                if piece := decoder.step(tokenizer.backend_tokenizer, token):
                    length += len(piece)
                    yield piece
        if rest := tokenizer.decode(tokens, skip_special_tokens=True)[length:]:
            yield rest

    def _space(self, width: int, height: int) -> Space:
        return space_of(self._card.coordinates, (width, height), self._resized(width, height))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self._card.coordinates != "resized pixels":
            return width, height
        images = self._processor.image_processor
        try:
            down, across = smart_resize(
                height,
                width,
                factor=images.patch_size * images.merge_size,
                min_pixels=images.size["shortest_edge"],
                max_pixels=images.size["longest_edge"],
            )
        except ValueError as error:
            raise ImageError(
                f"The picture of {width} x {height} pixels is too elongated for this model "
                f"({error}); use another slice."
            ) from error
        return across, down

    @contextmanager
    def _memory_watched(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryShortageError(
                f"{self._device} has too little memory for this question; close what else uses "
                "it, or load the model in 4 bits."
            ) from error
