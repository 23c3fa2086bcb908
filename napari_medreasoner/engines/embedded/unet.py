"""The `unet` segmenter (ASM): a small learned network that reads prompts as channels.

It sees a square window around the prompts, at 160 x 160 pixels: colours, where the picture is,
the box, positive and negative points, and the mask that is being corrected. With points alone it
looks twice: first at a window guessed from the points, then at one around what it found.

The network is a U-Net of two million parameters, trained by
`medreasoner_trainer.embedded.segmenter`; what it is worth stands in `weights/unet.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.masks import box_of_mask
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import Segmentation, SliceMask, VolumeInput
from napari_medreasoner.engines.embedded.crop import extent_of
from napari_medreasoner.engines.embedded.graphs import SHIPPED, open_graph, read_weights
from napari_medreasoner.engines.embedded.propagation import propagate
from napari_medreasoner.engines.embedded.window import (
    Window,
    appearance,
    prompt_planes,
    sampled,
)
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["UNetSegmenter", "load"]

_MARGIN: Final = 1.5
"""Side of the window over the longer side of the box."""

_GUESSED_MARGIN: Final = 2.0
"""The same for a box guessed from points."""

_SPECK: Final = 0.02
"""Parts smaller than this share of the largest one are dropped, unless clicked on."""

_SURELY_NOT: Final = -12.0
"""Logit beyond the window."""

Bools = NDArray[np.bool_]
Planes = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture with a fourth channel that tells it from what lies beyond its edges."""

    image: Image.Image
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Logits of a window, and the box that was given for them."""

    box: Box | None
    window: Window
    logits: Planes


class UNetSegmenter:
    """Segments from a box, points or both, in 2D and through volumes, on the CPU.

    Parameters
    ----------
    folder : Path
        Holds `unet.onnx` and `unet.safetensors`, as `medreasoner-train embedded ship` writes them.
    info : EngineInfo, optional
        What it says of itself, where it is not the one that ships.

    Raises
    ------
    WeightsError
        When a file is missing, damaged or does not fit the other.
    """

    info = EngineInfo(
        name="unet",
        title="Small U-Net (embedded)",
        description=(
            "A network of two million parameters trained on 1,700 structures of ten kinds of "
            "images; quick, and wrong more often on kinds it has not seen."
        ),
        licence="weights: non-commercial research",
        coordinates="pixels of the given picture, boxes max-exclusive",
        input_window="the 8-bit picture as displayed; colours scaled to those of the window",
        volumes=True,
    )

    def __init__(self, folder: Path = SHIPPED, info: EngineInfo | None = None) -> None:
        self.info = info or type(self).info
        weights = read_weights(folder / "unet.safetensors")
        self._network = open_graph(folder / "unet.onnx", weights)

    def set_image(self, image: NDArray[np.uint8]) -> _Picture:
        """Prepare the picture for being cut."""
        picture = Image.fromarray(np.ascontiguousarray(image))
        picture.putalpha(255)
        return _Picture(picture, 4 * picture.width * picture.height)

    def segment(
        self, embedding: _Picture, prompts: Prompts, previous: _Found | None = None
    ) -> Segmentation:
        """Segment one picture.

        Parameters
        ----------
        embedding : _Picture
            From `set_image`.
        prompts : Prompts
            A box or a positive point at least.
        previous : _Found or None
            `state` of the mask that is corrected; it counts while the box stays the same.

        Returns
        -------
        Segmentation
            Never empty. The score is the Dice that the network's own probabilities lead to
            expect.

        Raises
        ------
        PromptError
            When the prompts say nothing, or lie outside the picture.
        """
        image = embedding.image
        prompts = prompts.clipped(image.width, image.height)
        if previous is not None and previous.box == prompts.box and _sees(previous, prompts):
            found = self._looked(image, prompts, previous.window, _share(previous.logits))
        elif prompts.box is not None:
            found = self._looked(image, prompts, _window(prompts.box, prompts.points, _MARGIN))
        else:
            found = self._found_by_points(image, prompts)
        return _segmentation(found, image, prompts)

    def _found_by_points(self, image: Image.Image, prompts: Prompts) -> _Found:
        """Look around the points, then around what was found there."""
        positive = [point for point in prompts.points if point.positive]
        guess = extent_of(positive, image.width, image.height)
        first = self._looked(image, prompts, _window(guess, prompts.points, _GUESSED_MARGIN))
        mask = _segmentation(first, image, prompts).mask
        window = _window(box_of_mask(mask), prompts.points, _MARGIN)
        return self._looked(image, prompts, window, _share(_through(first, window)))

    def _looked(
        self, image: Image.Image, prompts: Prompts, window: Window, previous: Planes | None = None
    ) -> _Found:
        """Run the network on one window and its mirror image."""
        cut = np.asarray(sampled(image, window.affine))
        seen = appearance(cut[..., :3], cut[..., 3] > 127)
        told = prompt_planes(
            window.corners(prompts.box) if prompts.box else None,
            window.spots(prompts.points, positive=True),
            window.spots(prompts.points, positive=False),
            previous,
        )
        planes = np.concatenate([seen, told])
        both = np.stack([planes, planes[..., ::-1]])
        plain, mirrored = self._network.run(None, {"planes": both})[0]
        return _Found(prompts.box, window, (plain + mirrored[..., ::-1]) / 2)

    def propagate(self, request: VolumeInput) -> Iterator[SliceMask]:
        """Segment the prompted slice, then follow its mask by the random walker.

        The network itself follows worse: it fills the last slice's box again and again.

        Raises
        ------
        PromptError
            As for `segment`.
        """
        return propagate(self, request)


def load(card: ModelCard, folder: Path, options: EngineOptions) -> UNetSegmenter:
    """Read a network that was trained anew from its folder; it always runs on the CPU.

    Raises
    ------
    WeightsError
        As `UNetSegmenter`.
    """
    own = {
        "name": card.name,
        "title": card.title,
        "licence": card.licence,
        "description": card.description,
    }
    return UNetSegmenter(folder, UNetSegmenter.info.model_copy(update=own))


def _window(box: Box, points: tuple[Point, ...], margin: float) -> Window:
    """Around the box, stretched to points outside it."""
    x1, y1, x2, y2 = box.corners
    stretched = Box.from_corners(
        min([x1, *(point.x for point in points)]),
        min([y1, *(point.y for point in points)]),
        max([x2, *(point.x + 1 for point in points)]),
        max([y2, *(point.y + 1 for point in points)]),
    )
    return Window.around(stretched, margin)


def _sees(found: _Found, prompts: Prompts) -> bool:
    """Whether all points lie in a window, so that it need not be moved."""
    window = found.window
    return all(
        0 <= point.x - window.x < window.side and 0 <= point.y - window.y < window.side
        for point in prompts.points
    )


def _through(found: _Found, window: Window) -> Planes:
    """Logits of one window as another one has them."""
    scale = window.side / found.window.side
    step = found.logits.shape[0]
    affine = (
        scale,
        0.0,
        (window.x - found.window.x) * step / found.window.side,
        0.0,
        scale,
        (window.y - found.window.y) * step / found.window.side,
    )
    image = Image.fromarray(found.logits)
    moved = image.transform(
        image.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR, fillcolor=_SURELY_NOT
    )
    return np.asarray(moved)


def _share(logits: Planes) -> Planes:
    share: Planes = np.reciprocal(1 + np.exp(-logits), dtype=np.float32)
    return share


def _segmentation(found: _Found, image: Image.Image, prompts: Prompts) -> Segmentation:
    whole = _share(found.window.put(found.logits, image.width, image.height, _SURELY_NOT))
    mask = _tidy(whole > 0.5, prompts.points)
    if not mask.any():
        mask[np.unravel_index(int(whole.argmax()), whole.shape)] = True
    return Segmentation(mask, _expected_dice(whole, mask), found)


def _expected_dice(share: Planes, mask: Bools) -> float:
    """Dice with the truth, if each pixel is in it with its probability."""
    total = float(share.sum()) + np.count_nonzero(mask)
    return float(2 * share[mask].sum() / total) if total else 0.0


def _tidy(mask: Bools, points: tuple[Point, ...]) -> Bools:
    """Drop specks that no positive point lies on."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = sizes >= _SPECK * sizes.max()
    for point in points:
        kept[labels[point.y, point.x]] |= point.positive
    kept[0] = False
    tidy: Bools = kept[labels]
    return tidy
