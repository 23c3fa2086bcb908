"""MedSAM2 by the package `sam2` it was published with: a second opinion on `sam2`.

Slower to start and bound to a package that is built against one torch, so not what users need;
the tests compare the engine they do use with it. On random weights in float32, logits of pictures
differ by 2e-7 and logits along volumes by 2e-6 at most.

Three things could make volumes differ, each measured by undoing it alone:

* `sam2` built without `apply_postprocessing`, its default, remembers the prompted slice's mask in
  shades instead of black and white: 1.4e-2 in logits, 4 in 1000 pixels of the masks;
* from a given mask, transformers remembers the mask itself, `sam2` what is left of it at a quarter
  of the square's side: 3.6e-4;
* and makes the object pointer of the best of three candidates instead of the single one: 4e-4.

`sam2_weights.Tracker` does the last two as `sam2` does. Memories in bfloat16, positions in time and
multiple masks are alike in both. `sam2` also fills holes of up to 8 pixels, by a CUDA kernel of its
own that is left out here as most installations lack it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor

from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.engines.base import Segmentation, SliceMask, VolumeInput
from napari_medreasoner.engines.device import arithmetic, device_of, dtype_of
from napari_medreasoner.engines.memory import memory_guard
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.segmenters.common import (
    Embedding,
    authors_tensors,
    info_of,
    origin_in,
    require_fit,
    weights_file,
)
from napari_medreasoner.engines.segmenters.sam2 import SIDE
from napari_medreasoner.engines.segmenters.sam2_input import prompt_tokens
from napari_medreasoner.engines.segmenters.sam2_volume import Slices, touching

__all__ = ["ReferenceSegmenter", "build", "load"]

_CONFIGURATION: Final = "configs/sam2.1/sam2.1_hiera_t.yaml"


def build(side: int) -> Any:
    """SAM 2.1 tiny with random weights, for squares of this side in pixels, on the CPU.

    The package's configuration is for 1024; MedSAM2's differs from it in three values.
    """
    grid = f"[{side // 16},{side // 16}]"
    attention = "++model.memory_attention.layer"
    model = build_sam2_video_predictor(
        _CONFIGURATION,
        None,
        device="cpu",
        hydra_overrides_extra=[
            f"++model.image_size={side}",
            f"{attention}.self_attention.feat_sizes={grid}",
            f"{attention}.cross_attention.feat_sizes={grid}",
        ],
    )
    # Small holes would be filled by a CUDA kernel of the package, which is seldom built.
    model.fill_hole_area = 0
    return model


def load(card: ModelCard, folder: Path, options: EngineOptions) -> ReferenceSegmenter:
    """Load a checkpoint of the authors' layout.

    Raises
    ------
    WeightsError
        When it is missing, damaged, unsafe, or of another model.
    SettingsError
        When the device is not there.
    """
    path = weights_file(folder, [file.path for file in card.files])
    model = build(SIDE)
    tensors = authors_tensors(path)
    require_fit(path, model.state_dict(), tensors)
    model.load_state_dict(tensors)
    return ReferenceSegmenter(card, model, origin_in(folder, path), options)


class ReferenceSegmenter:
    """SAM 2.1 by `sam2`; takes the same inputs as `Sam2Segmenter`, whose documentation holds.

    Volumes are streamed too, but the package remembers every slice it has seen.
    """

    def __init__(self, card: ModelCard, model: Any, weights: str, options: EngineOptions) -> None:
        self._device = device_of(options)
        self._dtype = dtype_of(options, self._device)
        self._model = model.to(self._device)
        self._side = int(model.image_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which sam2 uses
            self._predictor = SAM2ImagePredictor(self._model)
        # The package has the sizes for squares of 1024 written into it.
        self._predictor._bb_feat_sizes = [(self._side // stride,) * 2 for stride in (4, 8, 16)]
        window = f"the 8-bit picture as displayed, resized to {self._side} x {self._side} pixels"
        self.info = info_of(card, weights, window, volumes=True)

    def set_image(self, image: NDArray[np.uint8]) -> Embedding:
        """Encode a picture."""

        def work() -> Embedding:
            with arithmetic(self._device, self._dtype):
                self._predictor.set_image(image)
            found = self._predictor._features
            self._predictor.reset_predictor()
            return Embedding(
                (*found["high_res_feats"], found["image_embed"]), (image.shape[0], image.shape[1])
            )

        return memory_guard("Encoding a picture", work)

    def segment(self, embedding: Embedding, prompts: Prompts, previous: Any = None) -> Segmentation:
        """Decode prompts; `previous` has the shape (1, 1, side / 4, side / 4)."""
        height, width = embedding.size
        prompts = prompts.clipped(width, height)
        places, labels = prompt_tokens(prompts, embedding.size, self._side)
        predictor = self._predictor
        predictor._features = {
            "high_res_feats": list(embedding.features[:-1]),
            "image_embed": embedding.features[-1],
        }
        predictor._orig_hw, predictor._is_image_set = [embedding.size], True
        with arithmetic(self._device, self._dtype):
            masks, scores, logits = predictor.predict(
                point_coords=places[0, 0].numpy() / self._side,
                point_labels=labels[0, 0].numpy(),
                mask_input=previous[0] if previous is not None else None,
                multimask_output=self._model._use_multimask(True, {"point_labels": labels[0]}),
                normalize_coords=False,
            )
        best = int(scores.argmax())
        return Segmentation(
            masks[best] > 0, float(scores[best]), torch.from_numpy(logits[best][None, None])
        )

    def propagate(self, request: VolumeInput) -> Iterator[SliceMask]:
        """Follow a structure; the score is the probability that it is in the slice."""
        for backwards in (False, True):
            last: NDArray[np.bool_] | None = None
            for index, logits, score in self.tracked(request, backwards=backwards):
                mask = (logits > 0).cpu().numpy()
                if last is None:
                    given = request.mask is not None
                    last = request.mask if request.mask is not None else mask
                    if not backwards:
                        yield SliceMask(index, last, 1.0 if given else score)
                    continue
                last = touching(mask, last)
                if index not in request.span or not last.any():
                    break
                yield SliceMask(index, last, score)

    def tracked(
        self, request: VolumeInput, *, backwards: bool
    ) -> Iterator[tuple[int, torch.Tensor, float]]:
        """Index, logits and score of the prompted slice and those that follow, one way."""
        state = self._state(request)
        with arithmetic(self._device, self._dtype):
            self._prompt(state, request)
        steps = self._model.propagate_in_video(
            state, start_frame_idx=request.index, reverse=backwards
        )
        while True:
            with arithmetic(self._device, self._dtype):
                step = next(steps, None)
            if step is None:
                return
            index, _, logits = step
            found = state["output_dict_per_obj"][0]
            kind = "cond_frame_outputs" if index == request.index else "non_cond_frame_outputs"
            there = found[kind][index]["object_score_logits"].float().sigmoid()
            yield index, logits[0, 0], float(there)

    def _prompt(self, state: dict[str, Any], request: VolumeInput) -> None:
        if request.mask is not None:
            self._model.add_new_mask(state, request.index, 0, request.mask)
            return
        size = (state["video_height"], state["video_width"])
        prompts = request.prompts.clipped(size[1], size[0])
        places, labels = prompt_tokens(prompts, size, self._side)
        self._model.add_new_points_or_box(
            state,
            request.index,
            0,
            points=places[0, 0] / self._side,
            labels=labels[0, 0],
            normalize_coords=False,
        )

    def _state(self, request: VolumeInput) -> dict[str, Any]:
        """What the package makes of a folder of JPEG files, of slices that are made when asked."""
        height, width = request.pictures[request.index].shape[:2]
        names = (
            "point_inputs_per_obj mask_inputs_per_obj cached_features constants obj_id_to_idx "
            "obj_idx_to_id output_dict_per_obj temp_output_dict_per_obj frames_tracked_per_obj"
        )
        return {
            **{name: {} for name in names.split()},
            "images": Slices(request.pictures, self._side),
            "num_frames": len(request.pictures),
            "video_height": height,
            "video_width": width,
            "device": self._device,
            "storage_device": self._device,
            "obj_ids": [],
        }
