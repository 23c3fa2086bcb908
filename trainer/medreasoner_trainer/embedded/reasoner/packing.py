"""Pictures with all that is asked about them, each in one sequence.

What comes before the questions, the picture above all, is read once, and no question sees another:
each follows the picture as if it were the only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from medreasoner_trainer.embedded.reasoner.views import Pictures, View
from medreasoner_trainer.embedded.reasoner.wording import Asked, Wording
from medreasoner_trainer.training.tokens import END_OF_TURN
from napari_medreasoner.core.prompts import PromptTemplate
from napari_medreasoner.engines.embedded.patches import patches_of

__all__ = ["IGNORED", "Batches", "Packs", "logits_of"]

IGNORED: Final = -100
"""Label of what is not learned."""

_PER_TOKEN: Final = 4
_SHARED: Final = 0
_FILLER: Final = -1


@dataclass(frozen=True)
class Packs:
    """Pictures, cut into patches, and a sequence for each, padded on the right to one length.

    Attributes
    ----------
    patches : Tensor, shape (patch, values)
        Of all pictures, one after the other.
    grids : Tensor of int, shape (picture, 3)
        Frames, and patches down and across.
    ids : Tensor of int, shape (picture, token)
        Tokens.
    part : Tensor of int, shape (picture, token)
        0 before the questions, n in the nth question and its answer, -1 in filler.
    labels : Tensor of int, shape (picture, token)
        The token that follows, where it is to be learned, else -100.
    """

    patches: Tensor
    grids: Tensor
    ids: Tensor
    part: Tensor
    labels: Tensor

    @property
    def attended(self) -> Tensor:
        """What each token sees, of shape (picture, 1, token, token): its past and its own part."""
        of, by = self.part[:, None, None, :], self.part[:, None, :, None]
        past = torch.ones(2 * self.ids.shape[1:], dtype=torch.bool).tril()
        seen: Tensor = past & ((of == _SHARED) | (of == by))
        return seen


class Batches:
    """Draws batches.

    Parameters
    ----------
    processor : Any
        Of the model.
    template : PromptTemplate
        What questions are put in; the picture comes before them.
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
        self._template = template
        self._pictures = pictures
        self._wording = wording

    def draw(
        self, pictures: int, questions: int, readings: int, unclear: float, draw: Generator
    ) -> Packs:
        """One batch; see `SupervisedRecipe` for the arguments."""
        views = [self._pictures.draw(draw) for _ in range(pictures)]
        asked: list[list[Asked]] = [[] for _ in views]
        for view, about in zip(views, asked, strict=True):
            for place in range(questions + readings):
                question, answer = self._wording.draw(view, draw, unclear)
                whole = place < questions
                about.append((question, answer + END_OF_TURN if whole else _first(answer)))
        return self.packs(views, asked)

    def packs(self, views: list[View], asked: list[list[Asked]]) -> Packs:
        """Views and what is asked about each, with the answers as they are to be learned."""
        cut = [patches_of(view.picture) for view in views]
        sequences = [
            self._sequence(view, len(patches) // _PER_TOKEN, about)
            for view, (patches, _), about in zip(views, cut, asked, strict=True)
        ]
        ids, part, labels = zip(*sequences, strict=True)
        return Packs(
            torch.from_numpy(np.concatenate([patches for patches, _ in cut])),
            torch.tensor([[1, *grid] for _, grid in cut]),
            pad_sequence(list(ids), batch_first=True, padding_value=self._tokenizer.pad_token_id),
            pad_sequence(list(part), batch_first=True, padding_value=_FILLER),
            pad_sequence(list(labels), batch_first=True, padding_value=IGNORED),
        )

    def _sequence(
        self, view: View, tokens: int, asked: list[Asked]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, parts and labels of one picture."""
        height, width = view.picture.shape[:2]
        ids: list[int] = []
        part: list[int] = []
        labels: list[int] = []
        for number, (question, answer) in enumerate(asked, start=1):
            shared, prompt = self._prompt(question, width, height, tokens)
            told = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
            if number == 1:
                ids, part = [*shared], [_SHARED] * len(shared)
                labels = [IGNORED] * len(shared)
            ids += prompt + told
            part += [number] * (len(prompt) + len(told))
            labels += [IGNORED] * (len(prompt) - 1) + told + [IGNORED]
        return torch.tensor(ids), torch.tensor(part), torch.tensor(labels)

    def _prompt(
        self, question: str, width: int, height: int, tokens: int
    ) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, to the end of the picture and after it."""
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
        text = text.replace("<|image_pad|>", "<|image_pad|>" * tokens)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        end = ids.index(self._tokenizer.get_vocab()["<|vision_end|>"]) + 1
        return ids[:end], ids[end:]


def _first(text: str) -> str:
    """The first sentence, without its full stop: another token where a sentence follows."""
    return text[: text.index(".")]


def logits_of(model: Any, packs: Packs, *, frozen: bool) -> Tensor:
    """Logits of the labelled tokens, of shape (token, vocabulary).

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
        It looks at each picture once.
    packs : Packs
        What it reads.
    frozen : bool
        Whether the vision tower gets no gradient.
    """
    inner = model.model
    with torch.set_grad_enabled(not frozen):
        seen = inner.visual(packs.patches, grid_thw=packs.grids).pooler_output
    shown = packs.ids == inner.config.image_token_id
    embedded = inner.get_input_embeddings()(packs.ids).masked_scatter(shown[..., None], seen)
    hidden = inner.language_model(
        inputs_embeds=embedded,
        attention_mask={"full_attention": packs.attended},
        position_ids=_positions(inner, packs),
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden[packs.labels != IGNORED])
    return logits


def _positions(inner: Any, packs: Packs) -> Tensor:
    """Positions of shape (3, picture, token); each part goes on where what is shared ends."""
    positions = torch.zeros(3, *packs.ids.shape, dtype=torch.long)
    for number, (ids, part) in enumerate(zip(packs.ids, packs.part, strict=True)):
        shared = ids[part == _SHARED][None]
        first, _ = inner.get_rope_index(
            shared,
            mm_token_type_ids=(shared == inner.config.image_token_id).int(),
            image_grid_thw=packs.grids[number : number + 1],
        )
        positions[:, number, part == _SHARED] = first[:, 0]
        ahead = int(first.max()) + 1
        for place in range(1, int(part.max()) + 1):
            mine = part == place
            positions[:, number, mine] = ahead + torch.arange(int(mine.sum()))
    return positions
