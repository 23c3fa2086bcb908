"""MedSAM2, and any SAM 2.1 in transformers' layout, on pictures and volumes.

MedSAM2 (Ma et al., arXiv 2504.03600) is SAM 2.1 tiny trained on medical images in squares of 512
pixels. A picture is prepared as by the authors' predictor: scaled to 0..1, resized to the square
(bilinear, with antialiasing) whatever its shape, then normalised with the mean and deviation of
ImageNet. It is encoded once; each prompt costs a decoder only.

On the same weights, logits of a picture equal those of the package `sam2`
(`sam2_reference`) to 1e-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.engines.base import Segmentation, SliceMask, VolumeInput
from napari_medreasoner.engines.device import arithmetic, device_of, dtype_of
from napari_medreasoner.engines.memory import memory_guard
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.models.weights import check_folder
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.segmenters.common import (
    Embedding,
    enlarged,
    info_of,
    load_checked,
    origin_in,
    weights_file,
)
from napari_medreasoner.engines.segmenters.sam2_input import prepared, prompt_tokens
from napari_medreasoner.engines.segmenters.sam2_volume import Follower
from napari_medreasoner.engines.segmenters.sam2_weights import Tracker, load_authors_file

__all__ = ["LOGIT_LIMIT", "SIDE", "Sam2Segmenter", "load"]

SIDE: Final = 512
"""Of the square MedSAM2 was trained with, which its checkpoint does not say."""

LOGIT_LIMIT: Final = 32.0
"""Fed back logits are kept within this, as by the authors' predictors."""


def load(card: ModelCard, folder: Path, options: EngineOptions) -> Sam2Segmenter:
    """Load a checkpoint of the authors' layout, or a folder of transformers'.

    Raises
    ------
    WeightsError
        When files are missing, damaged, unsafe, or of another model.
    SettingsError
        When the device is not there.
    """
    if (folder / "config.json").is_file():
        check_folder(folder, ("sam2_video",))
        path = min(folder.glob("*.safetensors"))
        model = load_checked(Tracker, folder)
    else:
        path = weights_file(folder, [file.path for file in card.files])
        model = load_authors_file(path, SIDE)
    return Sam2Segmenter(card, model, origin_in(folder, path), options)


class Sam2Segmenter:
    """SAM 2.1 by transformers.

    Parameters
    ----------
    card : ModelCard
        What is known of the model.
    model : Tracker
        Loaded, in float32.
    weights : str
        Where the weights came from.
    options : EngineOptions
        Device and precision of the arithmetic.
    """

    def __init__(
        self, card: ModelCard, model: Tracker, weights: str, options: EngineOptions
    ) -> None:
        self._device = device_of(options)
        self._dtype = dtype_of(options, self._device)
        self._model = memory_guard("Loading the model", lambda: model.to(self._device))
        self._side = int(model.image_size)
        window = f"the 8-bit picture as displayed, resized to {self._side} x {self._side} pixels"
        self.info = info_of(card, weights, window, volumes=True)

    def set_image(self, image: NDArray[np.uint8]) -> Embedding:
        """Encode a picture.

        Raises
        ------
        MemoryShortageError
            When there is too little memory, in 16 bits too.
        """
        size = (image.shape[0], image.shape[1])
        return memory_guard(
            "Encoding a picture",
            lambda: Embedding(self._encoded(image, self._dtype), size),
            lambda: Embedding(self._encoded(image, torch.bfloat16), size),
        )

    def _encoded(self, image: NDArray[np.uint8], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        with arithmetic(self._device, dtype):
            pixels = prepared(image, self._side).to(self._device)
            found = self._model.get_image_embeddings(pixels[None])
        return tuple(feature.to(self._dtype) for feature in found)

    def segment(self, embedding: Embedding, prompts: Prompts, previous: Any = None) -> Segmentation:
        """Decode prompts.

        Parameters
        ----------
        embedding : Embedding
            From `set_image`.
        prompts : Prompts
            Box, positive and negative points.
        previous : Tensor, optional
            `Segmentation.state`: logits of shape (1, 1, side / 4, side / 4) within +-32.

        Returns
        -------
        Segmentation
            The score is the overlap (IoU) with the truth that the model predicts. A lone point
            is ambiguous: the best of three masks is taken then.

        Raises
        ------
        PromptError
            When the prompts say nothing, or lie outside the picture.
        """
        height, width = embedding.size
        prompts = prompts.clipped(width, height)
        logits, score = memory_guard(
            "Segmenting", lambda: self._decoded(embedding, prompts, previous)
        )
        mask = (enlarged(logits, embedding.size) > 0).cpu().numpy()
        state = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)[None, None]
        return Segmentation(mask, score, state)

    def _decoded(
        self, embedding: Embedding, prompts: Prompts, previous: torch.Tensor | None
    ) -> tuple[torch.Tensor, float]:
        """Logits of shape (side / 4, side / 4), and the predicted overlap."""
        model, config = self._model, self._model.config
        places, labels = prompt_tokens(prompts, embedding.size, self._side)
        several = config.multimask_min_pt_num <= labels.numel() <= config.multimask_max_pt_num
        with torch.inference_mode():  # positions of prompts keep 32 bits
            sparse, dense = model.get_prompt_embeddings(
                input_points=places.to(self._device),
                input_labels=labels.to(self._device),
                input_masks=previous,
            )
            positions = model.get_image_wide_positional_embeddings()
        with arithmetic(self._device, self._dtype):
            masks, overlaps, _, _ = model.mask_decoder(
                image_embeddings=embedding.features[-1],
                image_positional_embeddings=positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=several,
                high_resolution_features=list(embedding.features[:-1]),
            )
            best = int(overlaps[0, 0].argmax())
            return masks[0, 0, best].float(), float(overlaps[0, 0, best])

    def propagate(self, request: VolumeInput) -> Iterator[SliceMask]:
        """Follow a structure through a volume; see `sam2_volume`.

        Raises
        ------
        PromptError
            As for `segment`, when there is no mask.
        MemoryShortageError
            As for `set_image`.
        """
        return Follower(self._model, request, self._device, self._dtype).masks()
