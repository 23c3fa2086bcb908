"""Teaches the vision tower to find structures before it is ever asked in words.

A head, thrown away afterwards, is asked for categories by number: it looks at the tower's tokens
and gives box, key points, a coarse mask and whether the structure is there. It knows no positions
but those the tokens tell, so that the tower learns to tell them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from medreasoner_trainer.embedded.loop import Loop, cosine, optimise
from medreasoner_trainer.embedded.reasoner.views import Pictures, Target, View
from napari_medreasoner.engines.embedded.patches import patches_of
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = [
    "TOWER",
    "Finder",
    "VisionRecipe",
    "VisionTraining",
    "make_fast",
    "place_loss",
    "shares_of",
]

TOWER: Final = "visual.pt"

_CELLS: Final = 16
"""Cells of 7 x 7 pixels in a token of 28 x 28."""


class _Look(nn.Module):
    """A query looks at the tokens, then thinks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, width // 32, batch_first=True)
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, query: Tensor, tokens: Tensor, absent: Tensor) -> Tensor:
        seen, _ = self.look(self.norm(query), tokens, tokens, absent, need_weights=False)
        query = query + seen
        thought: Tensor = query + self.think(query)
        return thought


class Finder(nn.Module):
    """The head.

    Parameters
    ----------
    width : int
        Of the tokens.
    categories : int
        That can be asked for.
    """

    def __init__(self, width: int, categories: int) -> None:
        super().__init__()
        self.asked = nn.Embedding(categories, width)
        self.tokens = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Look(width) for _ in range(3))
        self.place = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 9)
        )
        self.cells = nn.Linear(width, _CELLS * 32)
        self.paint = nn.Linear(width, 32)

    def forward(self, tokens: Tensor, absent: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Place and mask.

        Parameters
        ----------
        tokens : Tensor, shape (query, token, width)
            Of each query's picture.
        absent : Tensor of bool, shape (query, token)
            True where a picture has no such token.
        categories : Tensor of int, shape (query,)
            What is asked.

        Returns
        -------
        place : Tensor, shape (query, 9)
            Centre, size and points (x, y) as logits of shares of the picture, and the logit of
            presence.
        mask : Tensor, shape (query, token, cell)
            Logits.
        """
        tokens = self.tokens(tokens)
        query = self.asked(categories)[:, None]
        for layer in self.layers:
            query = layer(query, tokens, absent)
        cells = self.cells(tokens).unflatten(-1, (_CELLS, 32))
        mask = torch.einsum("qtcw,qw->qtc", cells, self.paint(query[:, 0])) / 32**0.5
        return self.place(query[:, 0]), mask


@dataclass(frozen=True)
class VisionRecipe:
    """How the tower is trained.

    Attributes
    ----------
    steps, batch : int
        Updates, and pictures of each.
    learning_rate, weight_decay, warmup
        Of AdamW and its cosine.
    absent : int
        Queries of a batch for structures that are not in their picture.
    seed : int
        Of weights and draws.
    """

    steps: int = 5900
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    absent: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Pictures and queries.

    Attributes
    ----------
    patches : Tensor, shape (patch, values)
        Of all pictures, one after the other.
    grids : Tensor of int, shape (picture, 3)
        Frames, and patches down and across.
    picture, category : Tensor of int, shape (query,)
        Which picture is asked about, and for what.
    present : Tensor, shape (query,)
        1 where it is there; these come first.
    box, points : Tensor, shape (present, 4)
        As shares of the picture's sides.
    cells : list of Tensor, each of shape (token, cell)
        Coarse masks of the present queries.
    """

    patches: Tensor
    grids: Tensor
    picture: Tensor
    category: Tensor
    present: Tensor
    box: Tensor
    points: Tensor
    cells: list[Tensor]


def batch_of(views: list[View], names: list[str], absent: int, draw: Generator) -> Batch:
    """Patches and queries; categories of another modality are asked for as absent ones."""
    cut = [patches_of(view.picture) for view in views]
    asked = [(number, target) for number, view in enumerate(views) for target in view.targets]
    wrong = _absent(views, absent, draw)
    return Batch(
        torch.from_numpy(np.concatenate([patches for patches, _ in cut])),
        torch.tensor([[1, *grid] for _, grid in cut]),
        torch.tensor([number for number, _ in (*asked, *wrong)]),
        torch.tensor([names.index(target.record.category) for _, target in (*asked, *wrong)]),
        torch.tensor([1.0] * len(asked) + [0.0] * len(wrong)),
        torch.tensor([shares_of(target.box, target) for _, target in asked]),
        torch.tensor(
            [shares_of((*target.points[0], *target.points[1]), target) for _, target in asked]
        ),
        [torch.from_numpy(_by_token(target.coarse)) for _, target in asked],
    )


def _absent(views: list[View], count: int, draw: Generator) -> list[tuple[int, Target]]:
    """Pictures with targets of others, of another modality."""
    found = []
    for _ in range(count):
        number = int(draw.integers(len(views)))
        here = {target.record.modality for target in views[number].targets}
        others = [
            target
            for view in views
            for target in view.targets
            if target.record.modality not in here
        ]
        if others:
            found.append((number, others[int(draw.integers(len(others)))]))
    return found


def shares_of(places: tuple[float, ...], target: Target) -> list[float]:
    """Places x, y, x, y in a view as shares of its sides."""
    height, width = target.mask.shape
    return [place / (height if axis % 2 else width) for axis, place in enumerate(places)]


def _by_token(coarse: np.ndarray) -> np.ndarray:
    """Cells of shape (row, column) as (token, cell)."""
    rows, columns = coarse.shape
    split = coarse.reshape(rows // 4, 4, columns // 4, 4).transpose(0, 2, 1, 3)
    return split.reshape(-1, _CELLS)


def make_fast(visual: Any) -> None:
    """Let the patches be embedded by one product of matrices; the convolution takes far longer."""
    embed = visual.patch_embed

    def product(patches: Tensor) -> Tensor:
        return functional.linear(patches, embed.proj.weight.flatten(1))

    embed.forward = product


def looked_at(visual: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Tokens of shape (picture, token, width), and which of them are absent."""
    tokens = visual(batch.patches, grid_thw=batch.grids).pooler_output
    counts = (batch.grids.prod(dim=1) // 4).tolist()
    parts = torch.split(tokens, counts)
    padded = nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    absent = torch.arange(padded.shape[1])[None] >= torch.tensor(counts)[:, None]
    return padded, absent


def finder_loss(visual: Any, finder: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Loss, and the IoU of each present query's box."""
    tokens, absent = looked_at(visual, batch)
    place, mask = finder(tokens[batch.picture], absent[batch.picture], batch.category)
    there = batch.present > 0
    loss = (
        functional.binary_cross_entropy_with_logits(place[:, 8], batch.present)
        + place_loss(place[there], batch.box, batch.points)
        + _mask_loss(mask[there], batch.cells)
    )
    return loss, _iou(corners_of(place[there]).detach(), batch.box)


def place_loss(place: Tensor, box: Tensor, points: Tensor) -> Tensor:
    """Loss of boxes and points; see `Finder.forward` and `Batch`."""
    found = corners_of(place)
    loss: Tensor = (
        4 * functional.l1_loss(found, box)
        + 1.5 * generalized_box_iou_loss(found, box).mean()
        + 2 * functional.l1_loss(place[:, 4:8].sigmoid(), points)
    )
    return loss


def _mask_loss(logits: Tensor, cells: list[Tensor]) -> Tensor:
    """Cross entropy and soft Dice of the coarse masks."""
    losses = []
    for found, truth in zip(logits, cells, strict=True):
        seen = found[: len(truth)]
        share = seen.sigmoid()
        overlap = (2 * (share * truth).sum() + 1) / (share.sum() + truth.sum() + 1)
        losses.append(2 * functional.binary_cross_entropy_with_logits(seen, truth) + 1 - overlap)
    return torch.stack(losses).mean()


def corners_of(place: Tensor) -> Tensor:
    """Corners as shares of the picture."""
    centre, size = place[:, :2].sigmoid(), place[:, 2:4].sigmoid()
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=1)
    areas = [(x[:, 2:] - x[:, :2]).clamp(min=0).prod(dim=1) for x in (a, b)]
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-9)


class VisionTraining:
    """Trains tower and head together.

    Parameters
    ----------
    visual : Module
        The vision tower.
    pictures, validation : Pictures
        Of the two splits.
    recipe : VisionRecipe
        What is done.
    out : Path
        Folder; `visual.pt` is the tower.
    """

    def __init__(
        self, visual: Any, pictures: Pictures, validation: Pictures, recipe: VisionRecipe, out: Path
    ) -> None:
        torch.manual_seed(recipe.seed)
        make_fast(visual)
        self._pictures, self._validation = pictures, validation
        self._recipe, self._out = recipe, out
        self._names = sorted({*pictures.categories, *validation.categories})
        finder = Finder(visual.config.out_hidden_size, len(self._names))
        self._both = nn.ModuleDict({"visual": visual, "finder": finder})
        self._optimiser = torch.optim.AdamW(
            self._both.parameters(),
            recipe.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
        )
        self._schedule = cosine(self._optimiser, recipe.steps, recipe.warmup)

    def run(self, report: Callable[[str], None]) -> None:
        """Train to the end."""
        Loop(self._out, self._recipe.steps, 100, 500, report).run(self._step, self._save)

    def _step(self, step: int) -> dict[str, float]:
        draw = np.random.default_rng((self._recipe.seed, step))
        views = [self._pictures.draw(draw) for _ in range(self._recipe.batch)]
        batch = batch_of(views, self._names, self._recipe.absent, draw)
        loss, iou = finder_loss(self._both["visual"], self._both["finder"], batch)
        optimise(self._both, loss, (self._optimiser, self._schedule))
        return {"loss": loss.item(), "iou": float(iou.mean())}

    def _save(self, step: int) -> dict[str, float]:
        # Whoever finds the file takes the tower for finished.
        if step == self._recipe.steps:
            with replace_atomically(self._out / TOWER) as file:
                torch.save(self._both["visual"].state_dict(), file)
        return {"validation_iou": self._validated()}

    @torch.no_grad()
    def _validated(self) -> float:
        """Mean IoU of the boxes of the validation split."""
        draw = np.random.default_rng(0)
        size = self._recipe.batch
        ious = []
        for start in range(0, len(self._validation), size):
            end = min(start + size, len(self._validation))
            views = [self._validation.plain(at) for at in range(start, end)]
            batch = batch_of(views, self._names, 0, draw)
            ious.append(finder_loss(self._both["visual"], self._both["finder"], batch)[1])
        return float(torch.cat(ious).mean())
