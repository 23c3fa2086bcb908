"""SAM-Med2D: SAM ViT-B with adapters, trained on medical images with boxes, points and masks.

By the protocol of its authors (Cheng et al., arXiv 2308.16184; their `SammedPredictor`): the
picture is normalised with ImageNet's mean and deviation, then resized to a square of 256 pixels
whatever its shape, by the nearest pixel. The best of three candidate masks is taken. Logits are
enlarged to the square first and to the picture then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.engines.base import Segmentation
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.segmenters.common import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Embedding,
    box_corners,
    clicks,
    enlarged,
    info_of,
    origin_in,
    weights_file,
)
from napari_medreasoner.engines.segmenters.sam_med2d_weights import load_authors_file
from napari_medreasoner.engines.segmenters.sam_network import SamNetwork

__all__ = ["SamMed2dSegmenter", "load", "prepared"]

_FILES: Final = ("sam-med2d_b.safetensors", "sam-med2d_b.pth")


def load(card: ModelCard, folder: Path, options: EngineOptions) -> SamMed2dSegmenter:
    """Load the authors' checkpoint, or the same tensors as safetensors.

    Raises
    ------
    WeightsError
        When it is missing, damaged, unsafe, or of another model.
    SettingsError
        When the device is not there.
    """
    path = weights_file(folder, _FILES)
    network = SamNetwork(load_authors_file(path), options)
    return SamMed2dSegmenter(card, network, origin_in(folder, path))


def prepared(picture: NDArray[np.uint8], side: int) -> torch.Tensor:
    """A picture as SAM-Med2D takes it, of shape (3, side, side)."""
    mean, deviation = (torch.tensor(of)[:, None, None] for of in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1) / 255
    return functional.interpolate(((pixels - mean) / deviation)[None], (side, side))[0]


class SamMed2dSegmenter:
    """SAM-Med2D.

    Parameters
    ----------
    card : ModelCard
        What is known of the model.
    network : SamNetwork
        Loaded.
    weights : str
        Where the weights came from.
    """

    def __init__(self, card: ModelCard, network: SamNetwork, weights: str) -> None:
        self._network = network
        window = (
            f"the 8-bit picture as displayed, resized to {network.side} x {network.side} pixels"
        )
        self.info = info_of(card, weights, window)

    def set_image(self, image: NDArray[np.uint8]) -> Embedding:
        """Encode a picture.

        Raises
        ------
        MemoryShortageError
            When there is too little memory, in 16 bits too.
        """
        features = self._network.encode(prepared(image, self._network.side))
        return Embedding((features,), (image.shape[0], image.shape[1]))

    def segment(self, embedding: Embedding, prompts: Prompts, previous: Any = None) -> Segmentation:
        """Decode prompts.

        Parameters
        ----------
        embedding : Embedding
            From `set_image`.
        prompts : Prompts
            Box, positive and negative points.
        previous : Tensor, optional
            `Segmentation.state`: logits of shape (side / 4, side / 4).

        Returns
        -------
        Segmentation
            The score is the overlap (IoU) with the truth that the model predicts.

        Raises
        ------
        PromptError
            When the prompts say nothing, or lie outside the picture.
        """
        height, width = embedding.size
        prompts = prompts.clipped(width, height)
        side = self._network.side
        corners = box_corners(prompts, embedding.size, side)
        points = torch.from_numpy(clicks(prompts, embedding.size, side))
        labels = torch.tensor([int(point.positive) for point in prompts.points])
        logits, score = self._network.decode(
            embedding.features[0],
            points=points if prompts.points else None,
            labels=labels if prompts.points else None,
            box=None if corners is None else torch.from_numpy(corners.reshape(4)),
            previous=previous,
            several=True,
        )
        mask = enlarged(enlarged(logits, (side, side)), embedding.size) > 0
        return Segmentation(mask.cpu().numpy(), score, logits)
