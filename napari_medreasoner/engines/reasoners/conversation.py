"""A question turned into what a vision-language model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from napari_medreasoner.core.errors import ImageError, QuestionError
from napari_medreasoner.engines.base import ReasonerInput

__all__ = ["Conversations"]


class Conversations:
    """Makes a model's inputs with its own processor and chat template.

    Parameters
    ----------
    processor : transformers.ProcessorMixin
        The model's; it pads on the left.
    instruction : str
        Added to the end of the user's message; empty adds nothing.
    """

    def __init__(self, processor: Any, instruction: str) -> None:
        self._processor = processor
        self._instruction = instruction
        self._control_words = _control_words(processor.tokenizer)

    def inputs(self, requests: Sequence[ReasonerInput]) -> Mapping[str, Any]:
        """Tensors on the CPU for one or several questions.

        Raises
        ------
        QuestionError
            When a message holds a word that steers the model itself.
        ImageError
            When a picture has a shape that the model cannot take.
        """
        chats = [self._chat(request) for request in requests]
        try:
            made: Mapping[str, Any] = self._processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        except ValueError as error:
            sizes = " or ".join(f"{r.image.shape[1]} x {r.image.shape[0]}" for r in requests)
            raise ImageError(
                f"The model cannot take a picture of {sizes} pixels ({error}); use another slice."
            ) from error
        return made

    def _chat(self, request: ReasonerInput) -> list[dict[str, Any]]:
        texts = [message.content for message in request.messages]
        if self._instruction:
            texts[-1] = f"{texts[-1]}\n{self._instruction}"
        chat: list[dict[str, Any]] = []
        for message, text in zip(request.messages, texts, strict=True):
            self._require_plain(text)
            content: list[dict[str, Any]] = [{"type": "text", "text": text}]
            if message.role == "user":
                content.insert(0, {"type": "image", "image": Image.fromarray(request.image)})
            chat.append({"role": message.role, "content": content})
        return chat

    def _require_plain(self, text: str) -> None:
        """Refuse control words: they would end the user's turn or announce a second picture."""
        for word in self._control_words:
            if word in text:
                raise QuestionError(
                    f'The question or its template holds "{word}", which is a control word of '
                    "this model; leave it out."
                )


def _control_words(tokenizer: Any) -> tuple[str, ...]:
    added = tokenizer.added_tokens_decoder.values()
    return tuple(sorted({token.content for token in added if token.special}))
