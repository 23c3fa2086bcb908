"""MedSAM: SAM ViT-B trained on medical images, prompted with boxes.

By the protocol of its authors (Ma et al., "Segment anything in medical images", Nature
Communications 15, 654, 2024; their `MedSAM_Inference.py`): the picture is resized to a square of
1024 pixels whatever its shape (cubic, with antialiasing, back to 8 bits), then scaled so that its
own minimum is 0 and its maximum 1, without ImageNet's mean and deviation. Probabilities, not
logits, are enlarged to the picture. The processor of transformers would do all of this otherwise.

It never saw a point while it was trained; points have no effect on it, and without a box it says
so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.transform import resize
from transformers import SamModel

from napari_medreasoner.core.errors import PromptError
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.engines.base import Segmentation
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.models.weights import check_folder
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.segmenters.common import (
    Embedding,
    box_corners,
    enlarged,
    info_of,
    load_checked,
    origin_in,
)
from napari_medreasoner.engines.segmenters.sam_network import SamNetwork

__all__ = ["MedSamSegmenter", "load", "prepared"]

_CUBIC: Final = 3


def load(card: ModelCard, folder: Path, options: EngineOptions) -> MedSamSegmenter:
    """Load a folder in transformers' layout.

    Raises
    ------
    WeightsError
        When files are missing, damaged, unsafe, or of another model.
    SettingsError
        When the device is not there.
    """
    check_folder(folder, ("sam",))
    network = SamNetwork(load_checked(SamModel, folder), options)
    return MedSamSegmenter(card, network, origin_in(folder, min(folder.glob("*.safetensors"))))


def prepared(picture: NDArray[np.uint8], side: int) -> torch.Tensor:
    """A picture as MedSAM takes it, of shape (3, side, side), from 0 to 1."""
    if (picture == picture[..., :1]).all():  # grey: resizing, a second's work, is done once
        picture = picture[..., :1]
    square = resize(
        picture, (side, side), order=_CUBIC, preserve_range=True, anti_aliasing=True
    ).astype(np.uint8)
    least, most = int(square.min()), int(square.max())
    scaled = (square - float(least)) / max(most - least, 1e-8)
    return torch.from_numpy(scaled).float().permute(2, 0, 1).expand(3, -1, -1)


class MedSamSegmenter:
    """MedSAM.

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
            f"the 8-bit picture as displayed, resized to {network.side} x {network.side} pixels, "
            "its range of grey levels stretched"
        )
        self.info = info_of(card, weights, window, prompts=("box",))

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
        """Segment what is in the box.

        Parameters
        ----------
        embedding : Embedding
            From `set_image`.
        prompts : Prompts
            With a box; its points have no effect.
        previous : None
            Not used: MedSAM was not trained to correct a mask.

        Returns
        -------
        Segmentation
            The score is the overlap (IoU) with the truth that the model predicts.

        Raises
        ------
        PromptError
            When there is no box, or it lies outside the picture.
        """
        height, width = embedding.size
        corners = box_corners(prompts.clipped(width, height), embedding.size, self._network.side)
        if corners is None:
            raise PromptError(
                "MedSAM takes a box, and there are points alone; draw a box, or choose a segmenter "
                "that takes points, such as medsam2."
            )
        logits, score = self._network.decode(
            embedding.features[0], box=torch.from_numpy(corners.reshape(4))
        )
        mask = (enlarged(logits.sigmoid(), embedding.size) > 0.5).cpu().numpy()
        return Segmentation(mask, score)
