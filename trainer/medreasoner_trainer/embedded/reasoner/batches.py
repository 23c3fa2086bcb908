"""What the language stage is shown and asked, as tokens.

Most of a sequence is its picture, so texts about one picture share what comes up to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from medreasoner_trainer.embedded.reasoner.views import Pictures, Target, View
from medreasoner_trainer.embedded.reasoner.wording import REFUSED, Asked, Wording, first_sentence
from medreasoner_trainer.training.tokens import END_OF_TURN
from napari_medreasoner.core.prompts import PromptTemplate
from napari_medreasoner.engines.embedded.patches import patches_of

__all__ = ["IGNORED", "Batches", "Rows", "Tokens", "Wanted"]

IGNORED: Final = -100
"""Label of a token that is not learned."""

_PER_TOKEN: Final = 4
"""Patches of a picture that become one token."""

_END_OF_PICTURE: Final = "<|vision_end|>"
_ANY: Final = "?"
"""Questions come after the picture: whatever is asked, the beginning is the same."""
_ANY_SIZE: Final = (224, 224)

Ids = tuple[list[int], bool]
"""Tokens of a part of a sequence, and whether they are to be learned."""


class _Text(NamedTuple):
    """A sequence in parts, of which some are learned; see `Tokens`."""

    picture: int
    parts: Sequence[Ids]
    named: int = 0
    target: Target | None = None


@dataclass(frozen=True)
class Wanted:
    """How much is drawn.

    Attributes
    ----------
    pictures, questions : int
        Pictures, and questions about each.
    readings : int
        Further questions about each picture, of whose answers only the first sentence is learned,
        which says how the question was read.
    unclear, pieces : float
        Shares of questions that lose some of their words and letters, and that are put together
        from pieces of others.
    refused : float
        Shares of questions without an answer, and without one in their picture.
    """

    pictures: int = 8
    questions: int = 2
    readings: int = 0
    unclear: float = 0.0
    pieces: float = 0.0
    refused: float = REFUSED


@dataclass(frozen=True)
class Tokens:
    """Sequences padded on the right to one length.

    Attributes
    ----------
    ids, attended : Tensor of int, shape (sequence, token)
        Tokens, and 1 where there is one.
    labels : Tensor of int, shape (sequence, token)
        The token that follows, where it is to be learned.
    picture : Tensor of int, shape (sequence,)
        Which picture each belongs to.
    named : Tensor of int, shape (sequence,)
        The token at which an answer has said what its question is about.
    targets : list of Target or None
        What that is, where it is in view and not refused.
    """

    ids: Tensor
    attended: Tensor
    labels: Tensor
    picture: Tensor
    named: Tensor
    targets: list[Target | None]


@dataclass(frozen=True)
class Rows:
    """Pictures, cut into patches, and texts about them in groups of like length.

    Attributes
    ----------
    patches : Tensor, shape (patch, values)
        Of all pictures, one after the other.
    grids : Tensor of int, shape (picture, 3)
        Frames, and patches down and across.
    shown : Tokens
        What texts about a picture begin with, one sequence for each picture.
    texts : list of Tokens
        The rest.
    """

    patches: Tensor
    grids: Tensor
    shown: Tokens
    texts: list[Tokens]


class Batches:
    """Draws batches.

    Parameters
    ----------
    processor : Any
        Of the model.
    template : PromptTemplate
        What questions are put in.
    pictures : Pictures
        To be seen.
    wording : Wording
        To be asked.
    """

    def __init__(
        self, processor: Any, template: PromptTemplate, pictures: Pictures, wording: Wording
    ) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._filler = processor.tokenizer.pad_token_id
        self._template = template
        self._pictures = pictures
        self._wording = wording

    def draw(self, wanted: Wanted, draw: Generator) -> Rows:
        """One batch: whole answers, and readings apart as these are short."""
        views = [self._pictures.draw(draw) for _ in range(wanted.pictures)]
        whole, readings = [], []
        for number, view in enumerate(views):
            for place in range(wanted.questions + wanted.readings):
                asked = self._wording.draw(
                    view, draw, wanted.unclear, wanted.pieces, wanted.refused
                )
                if place < wanted.questions:
                    whole.append((number, asked._replace(answer=asked.answer + END_OF_TURN)))
                else:
                    read = first_sentence(asked.answer)
                    readings.append((number, asked._replace(answer=read)))
        return self.rows(views, [group for group in (whole, readings) if group])

    def rows(self, views: Sequence[View], asked: Sequence[Sequence[tuple[int, Asked]]]) -> Rows:
        """Groups of questions about views with their answers; the number says which view."""
        cut = [patches_of(view.picture) for view in views]
        counts = [len(patches) // _PER_TOKEN for patches, _ in cut]
        sizes = [(view.picture.shape[1], view.picture.shape[0]) for view in views]
        begun = [self.prompt(_ANY, *sizes[at], counts[at])[0] for at in range(len(views))]
        return Rows(
            torch.from_numpy(np.concatenate([patches for patches, _ in cut])),
            torch.tensor([[1, *grid] for _, grid in cut]),
            self._padded([_Text(at, [(ids, False)]) for at, ids in enumerate(begun)]),
            [self._texts(group, sizes) for group in asked],
        )

    def _texts(
        self, asked: Sequence[tuple[int, Asked]], sizes: Sequence[tuple[int, int]]
    ) -> Tokens:
        told = []
        for number, (question, answer, target) in asked:
            _, rest = self.prompt(question, *sizes[number], 0)
            named = len(rest) + len(self._ids(first_sentence(answer))) - 1
            parts = [(rest, False), (self._ids(answer), True)]
            told.append(_Text(number, parts, named, target))
        return self._padded(told)

    def readings(self, count: int, unclear: float, pieces: float, draw: Generator) -> Tokens:
        """So many texts without a picture that say how a question is read; see `Wording.read`."""
        told = []
        for number in range(count):
            question, answer = self._wording.read(draw, unclear, pieces)
            shown, rest = self.prompt(question, *_ANY_SIZE, 0)
            parts = [(shown, False), (rest, False)]
            parts += [(self._ids(text), learned) for text, learned in answer]
            told.append(_Text(number, parts))
        return self._padded(told)

    def prompt(
        self, question: str, width: int, height: int, tokens: int
    ) -> tuple[list[int], list[int]]:
        """Tokens of the prompt up to the end of its picture, and the others."""
        rendered = self._template.render(question, width, height)
        messages = [
            {
                "role": message.role,
                "content": [{"type": "image"}, {"type": "text", "text": message.content}],
            }
            for message in rendered
        ]
        text = self._processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        shown, end, rest = text.partition(_END_OF_PICTURE)
        shown = shown.replace("<|image_pad|>", "<|image_pad|>" * tokens)
        return self._ids(shown + end), self._ids(rest)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _padded(self, texts: Sequence[_Text]) -> Tokens:
        wholes, labels = [], []
        for text in texts:
            whole = torch.tensor([token for ids, _ in text.parts for token in ids])
            learned = torch.tensor([told for ids, told in text.parts for _ in ids])
            label = torch.full_like(whole, IGNORED)
            label[:-1] = whole[1:].where(learned[1:], torch.tensor(IGNORED))
            wholes.append(whole)
            labels.append(label)
        ids = pad_sequence(wholes, batch_first=True, padding_value=self._filler)
        lengths = torch.tensor([len(whole) for whole in wholes])
        return Tokens(
            ids,
            (torch.arange(ids.shape[1])[None] < lengths[:, None]).long(),
            pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            torch.tensor([text.picture for text in texts]),
            torch.tensor([text.named for text in texts]),
            [text.target for text in texts],
        )
