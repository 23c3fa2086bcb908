"""Supervised cold start: questions in words, answers as text, on random views.

What TRL's SFT does, and two things it does not: every picture is seen anew each time, and the
label of a coordinate is spread over the numbers next to it, as a box that is one pixel off is
almost right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from medreasoner_trainer.embedded.loop import Loop, cosine, optimise
from medreasoner_trainer.embedded.reasoner.views import Pictures, View
from medreasoner_trainer.embedded.reasoner.vision import make_fast
from medreasoner_trainer.embedded.reasoner.wording import Asked, Wording
from medreasoner_trainer.training.tokens import END_OF_TURN
from napari_medreasoner.core.prompts import PromptTemplate
from napari_medreasoner.engines.embedded.patches import patches_of
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = ["MODEL", "STAGES", "Batches", "Coordinates", "SupervisedRecipe", "SupervisedTraining"]

MODEL: Final = "model.pt"

_IGNORED: Final = -100
_PER_TOKEN: Final = 4


@dataclass(frozen=True)
class SupervisedRecipe:
    """How the whole model is trained.

    Attributes
    ----------
    steps, pictures, questions : int
        Updates, pictures of each, and questions about each picture.
    readings : int
        Further questions about each picture, of whose answers only the first sentence is learned,
        which says how the question was read.
    unclear : float
        Share of questions that lose some of their words and letters.
    frozen : int
        First steps, in which the vision tower keeps its weights.
    learning_rate, vision_rate, weight_decay, warmup
        Of AdamW and its cosine; the tower has a rate of its own.
    spread : float
        Standard deviation, in pixels, by which labels of coordinates are spread.
    coordinate_weight : float
        How much they count, other words being 1.
    seed : int
        Of draws.
    """

    steps: int = 1300
    pictures: int = 8
    questions: int = 2
    readings: int = 0
    unclear: float = 0.0
    frozen: int = 400
    learning_rate: float = 1e-3
    vision_rate: float = 3e-4
    weight_decay: float = 0.02
    warmup: int = 50
    spread: float = 2.0
    coordinate_weight: float = 2.0
    seed: int = 0


STAGES: Final = (
    SupervisedRecipe(),
    SupervisedRecipe(
        steps=600, readings=3, unclear=0.6, frozen=600, learning_rate=8e-4, warmup=30, seed=1
    ),
)
"""What the shipped model learned in: one after the other."""


@dataclass(frozen=True)
class Texts:
    """Questions with their answers, padded on the right to one length.

    Attributes
    ----------
    ids, attended : Tensor of int, shape (text, token)
        Tokens, and 1 where there is one.
    labels : Tensor of int, shape (text, token)
        The token that follows, where it is to be learned.
    picture : Tensor of int, shape (text,)
        Which picture each is about.
    """

    ids: Tensor
    attended: Tensor
    labels: Tensor
    picture: Tensor


@dataclass(frozen=True)
class Rows:
    """Pictures, cut into patches, and texts about them in groups of like length."""

    patches: Tensor
    grids: Tensor
    texts: list[Texts]


class Coordinates:
    """The tokens of a vocabulary that are numbers, and their spread labels.

    Parameters
    ----------
    tokenizer : Any
        Every number up to some largest one is one token.
    spread : float
        Standard deviation in pixels.
    """

    def __init__(self, tokenizer: Any, spread: float) -> None:
        words = tokenizer.get_vocab()
        count = 0
        while str(count) in words:
            count += 1
        self.tokens = torch.tensor([words[str(number)] for number in range(count)])
        self.number = torch.full((len(tokenizer),), -1)
        self.number[self.tokens] = torch.arange(count)
        self.underscore = words["_"]
        gap = torch.arange(count)[None] - torch.arange(count)[:, None]
        self.target = torch.softmax(-(gap.float() ** 2) / (2 * spread**2), dim=1)

    def loss(self, logits: Tensor, labels: Tensor, before: Tensor, weight: float) -> Tensor:
        """Cross entropy; labels that are coordinates count `weight` times.

        Parameters
        ----------
        logits : Tensor, shape (token, vocabulary)
            Of the tokens with a label.
        labels, before : Tensor of int, shape (token,)
            Those labels, and the token before each: "1" in "points_1" is no coordinate.
        weight : float
            Of coordinates.
        """
        logs = functional.log_softmax(logits.float(), dim=-1)
        exact = -logs.gather(1, labels[:, None])[:, 0]
        number = self.number[labels]
        placed = (number >= 0) & (before != self.underscore)
        soft = -(self.target[number[placed]] * logs[placed][:, self.tokens]).sum(dim=1)
        total = exact[~placed].sum() + weight * soft.sum()
        mean: Tensor = total / (labels.numel() + (weight - 1) * placed.sum())
        return mean


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
        self._template = template
        self._pictures = pictures
        self._wording = wording

    def draw(self, recipe: SupervisedRecipe, draw: Generator) -> Rows:
        """One batch: whole answers, and readings apart as these are short."""
        views = [self._pictures.draw(draw) for _ in range(recipe.pictures)]
        whole, readings = [], []
        for number, view in enumerate(views):
            for place in range(recipe.questions + recipe.readings):
                question, answer = self._wording.draw(view, draw, recipe.unclear)
                if place < recipe.questions:
                    whole.append((number, (question, answer + END_OF_TURN)))
                else:
                    readings.append((number, (question, _first_sentence(answer))))
        return self.rows(views, [group for group in (whole, readings) if group])

    def rows(self, views: list[View], asked: list[list[tuple[int, Asked]]]) -> Rows:
        """Groups of questions about views with their answers; the number says which view."""
        cut = [patches_of(view.picture) for view in views]
        return Rows(
            torch.from_numpy(np.concatenate([patches for patches, _ in cut])),
            torch.tensor([[1, *grid] for _, grid in cut]),
            [self._texts(group, views, [len(patches) for patches, _ in cut]) for group in asked],
        )

    def _texts(
        self, asked: list[tuple[int, Asked]], views: list[View], patches: list[int]
    ) -> Texts:
        sequences, labels = [], []
        for number, (question, answer) in asked:
            height, width = views[number].picture.shape[:2]
            prompt = self.prompt(question, width, height, patches[number] // _PER_TOKEN)
            told = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
            whole = torch.tensor(prompt + told)
            label = torch.full_like(whole, _IGNORED)
            label[len(prompt) - 1 : -1] = whole[len(prompt) :]
            sequences.append(whole)
            labels.append(label)
        filler = self._tokenizer.pad_token_id
        ids = pad_sequence(sequences, batch_first=True, padding_value=filler)
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return Texts(
            ids,
            (torch.arange(ids.shape[1])[None] < lengths[:, None]).long(),
            pad_sequence(labels, batch_first=True, padding_value=_IGNORED),
            torch.tensor([number for number, _ in asked]),
        )

    def prompt(self, question: str, width: int, height: int, tokens: int) -> list[int]:
        """Tokens of the prompt with its picture."""
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
        return ids


def _first_sentence(text: str) -> str:
    """Without its full stop, which is another token where a sentence follows."""
    return text[: text.index(".")]


def logits_of(model: Any, rows: Rows, *, frozen: bool) -> list[Tensor]:
    """Logits of the labelled tokens of each group of texts.

    Each picture is looked at once, whoever asks about it.
    """
    with torch.set_grad_enabled(not frozen):
        seen = model.model.visual(rows.patches, grid_thw=rows.grids).pooler_output
    parts = torch.split(seen, (rows.grids.prod(dim=1) // _PER_TOKEN).tolist())
    return [_logits(model, texts, parts, rows.grids) for texts in rows.texts]


def _logits(model: Any, texts: Texts, parts: tuple[Tensor, ...], grids: Tensor) -> Tensor:
    inner = model.model
    shown = texts.ids == inner.config.image_token_id
    image = torch.cat([parts[number] for number in texts.picture.tolist()])
    embedded = inner.get_input_embeddings()(texts.ids).masked_scatter(shown[..., None], image)
    positions, _ = inner.get_rope_index(
        texts.ids,
        mm_token_type_ids=shown.int(),
        image_grid_thw=grids[texts.picture],
        attention_mask=texts.attended,
    )
    hidden = inner.language_model(
        inputs_embeds=embedded,
        attention_mask=texts.attended,
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden[texts.labels != _IGNORED])
    return logits


class SupervisedTraining:
    """Trains the whole model; its vision tower joins in after some steps.

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
        With a tower that sees already.
    batches : Batches
        What it learns from.
    coordinates : Coordinates
        Spreads labels.
    recipe : SupervisedRecipe
        What is done.
    out : Path
        Folder; `model.pt` is the whole model.
    """

    def __init__(
        self,
        model: Any,
        batches: Batches,
        coordinates: Coordinates,
        recipe: SupervisedRecipe,
        out: Path,
    ) -> None:
        make_fast(model.model.visual)
        self._model, self._batches, self._coordinates = model, batches, coordinates
        self._recipe, self._out = recipe, out
        visual = list(model.model.visual.parameters())
        seeing = {id(parameter) for parameter in visual}
        others = [parameter for parameter in model.parameters() if id(parameter) not in seeing]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": others, "lr": recipe.learning_rate},
                {"params": visual, "lr": recipe.vision_rate},
            ],
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
        )
        self._schedule = cosine(self._optimiser, recipe.steps, recipe.warmup)

    def run(self, report: Callable[[str], None]) -> None:
        """Train to the end."""
        Loop(self._out, self._recipe.steps, 50, 250, report).run(self._step, self._save)

    def _step(self, step: int) -> dict[str, float]:
        recipe = self._recipe
        rows = self._batches.draw(recipe, np.random.default_rng((recipe.seed, step)))
        logits = logits_of(self._model, rows, frozen=step < recipe.frozen)
        labels = [texts.labels[texts.labels != _IGNORED] for texts in rows.texts]
        before = [texts.ids[texts.labels != _IGNORED] for texts in rows.texts]
        loss = self._coordinates.loss(
            torch.cat(logits), torch.cat(labels), torch.cat(before), recipe.coordinate_weight
        )
        optimise(self._model, loss, self._optimiser, self._schedule)
        return {"loss": loss.item()}

    def _save(self, step: int) -> dict[str, float]:
        with replace_atomically(self._out / MODEL) as file:
            torch.save(self._model.state_dict(), file)
        return {}
