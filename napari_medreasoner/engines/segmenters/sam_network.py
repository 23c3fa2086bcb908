"""SAM of transformers as MedSAM and SAM-Med2D use it: encoder and decoder apart."""

from __future__ import annotations

from typing import Any

import torch

from napari_medreasoner.engines.device import arithmetic, device_of, dtype_of
from napari_medreasoner.engines.memory import memory_guard
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["SamNetwork"]


class SamNetwork:
    """A SAM on its device.

    Parameters
    ----------
    model : transformers.SamModel
        Loaded, in float32.
    options : EngineOptions
        Device and precision of the arithmetic.

    Attributes
    ----------
    side : int
        Of the square it takes, in pixels.
    """

    def __init__(self, model: Any, options: EngineOptions) -> None:
        self._device = device_of(options)
        self._dtype = dtype_of(options, self._device)
        self._model = memory_guard("Loading the model", lambda: model.to(self._device))
        self.side = int(model.config.vision_config.image_size)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of a picture of shape (3, side, side), prepared as the model wants it.

        Raises
        ------
        MemoryShortageError
            When there is too little memory, in 16 bits too.
        """

        def work(dtype: torch.dtype) -> torch.Tensor:
            with arithmetic(self._device, dtype):
                found = self._model.get_image_embeddings(pixels[None].to(self._device))
            features: torch.Tensor = found.to(self._dtype)
            return features

        return memory_guard(
            "Encoding a picture", lambda: work(self._dtype), lambda: work(torch.bfloat16)
        )

    def decode(
        self,
        features: torch.Tensor,
        *,
        points: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        box: torch.Tensor | None = None,
        previous: torch.Tensor | None = None,
        several: bool = False,
    ) -> tuple[torch.Tensor, float]:
        """Logits of the best candidate, of shape (side / 4, side / 4), and its predicted overlap.

        Parameters
        ----------
        features : Tensor
            From `encode`.
        points, labels : Tensor, optional
            Of shape (point, 2) in (x, y) of the square, and (point,): 1 yes, 0 no.
        box : Tensor, optional
            Four corners in the square.
        previous : Tensor, optional
            Logits to start from, of the shape this gives.
        several : bool
            Choose among three candidates; else the single one.
        """
        given = {
            "input_points": None if points is None else points[None, None].to(self._device),
            "input_labels": None if labels is None else labels[None, None].to(self._device),
            "input_boxes": None if box is None else box[None, None].to(self._device),
            "input_masks": None if previous is None else previous[None, None].to(self._device),
        }

        def work() -> tuple[torch.Tensor, float]:
            with torch.inference_mode():  # positions of prompts keep 32 bits
                sparse, dense = self._model.get_prompt_embeddings(**given)
                positions = self._model.get_image_wide_positional_embeddings()
            with arithmetic(self._device, self._dtype):
                masks, overlaps = self._model.mask_decoder(
                    image_embeddings=features,
                    image_positional_embeddings=positions,
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=several,
                )
                best = int(overlaps[0, 0].argmax())
                return masks[0, 0, best].float(), float(overlaps[0, 0, best].clamp(0, 1))

        return memory_guard("Segmenting", work)
