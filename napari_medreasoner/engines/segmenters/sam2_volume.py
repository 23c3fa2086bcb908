"""Following a structure through a volume with SAM 2's video model, slice by slice.

The prompted slice is decoded as a picture is, or its mask is given. Each further slice is decoded
with what the model remembers: the prompted slice, the last six slices (mask and features) and the
last fifteen object pointers. Both ways start from the prompted slice alone, as MedSAM2's authors
do it. Slices are prepared when their turn comes and memories are dropped when they are out of
reach, so that a volume of any length takes the same memory.

On the same weights, logits equal those of the package `sam2` to 1e-5, from prompts and from a
given mask, if that is built with `apply_postprocessing`, its default; without, it remembers the
prompted slice's mask in shades instead of black and white, and about 4 in 1000 pixels differ.

Of each mask only what touches the last slice's mask is kept (corners count): the authors keep the
largest connected part of the whole volume, which cannot be known while it is streamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from napari_medreasoner.engines.base import SliceMask, VolumeInput
from napari_medreasoner.engines.device import arithmetic
from napari_medreasoner.engines.memory import memory_guard
from napari_medreasoner.engines.segmenters.common import enlarged
from napari_medreasoner.engines.segmenters.sam2_input import mask_square, prepared, prompt_tokens
from napari_medreasoner.engines.segmenters.sam2_weights import Tracker

__all__ = ["Follower", "Slices", "touching"]

_OBJECT = 0
"""One object is followed at a time."""


class Follower:
    """One structure on its way through one volume.

    Parameters
    ----------
    model : Tracker
        Loaded, on its device.
    request : VolumeInput
        Slices and prompts.
    device, dtype
        Where and in which precision to compute.
    """

    def __init__(
        self, model: Tracker, request: VolumeInput, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._model = model
        self._request = request
        self._device = device
        self._dtype = dtype
        self._size = request.pictures[request.index].shape[:2]
        self._session = Sam2VideoInferenceSession(
            video_height=self._size[0],
            video_width=self._size[1],
            inference_device=device,
            inference_state_device=device,
            dtype=torch.float32,
        )
        self._session.processed_frames = Slices(request.pictures, model.image_size)
        self._session.obj_id_to_idx(_OBJECT)

    def masks(self) -> Iterator[SliceMask]:
        """The prompted slice's mask, then those upwards, then those downwards."""
        request = self._request
        first = self.start()
        yield first
        for way in (
            range(request.index + 1, request.span.stop),
            range(request.index - 1, request.span.start - 1, -1),
        ):
            last = first.mask
            self._tracked.clear()
            for index in way:
                logits, score = self.step(index, backwards=way.step < 0)
                last = touching((logits > 0).cpu().numpy(), last)
                if not last.any():
                    break
                yield SliceMask(index, last, score)

    def start(self) -> SliceMask:
        """Tell the model the prompts or the mask of the prompted slice; give that slice's mask.

        Raises
        ------
        PromptError
            When there is no mask and the prompts cannot be used.
        """
        request, session = self._request, self._session
        if request.mask is not None:
            given = mask_square(request.mask, self._model.image_size)
            session.add_mask_inputs(_OBJECT, request.index, given)
        else:
            prompts = request.prompts.clipped(self._size[1], self._size[0])
            places, labels = prompt_tokens(prompts, self._size, self._model.image_size)
            inputs = {"point_coords": places, "point_labels": labels}
            session.add_point_inputs(_OBJECT, request.index, inputs)
        logits, score = self.step(request.index, backwards=False)
        if request.mask is not None:
            return SliceMask(request.index, request.mask, 1.0)
        return SliceMask(request.index, (logits > 0).cpu().numpy(), score)

    def step(self, index: int, *, backwards: bool) -> tuple[torch.Tensor, float]:
        """Logits of a slice, of the slice's own shape, and the score.

        The score is the predicted overlap times the probability that the object is there.
        """

        def work(dtype: torch.dtype) -> tuple[torch.Tensor, float]:
            # Said anew each time: a step that failed half-way has used it up.
            self._session.obj_with_new_inputs = [_OBJECT] if index == self._request.index else []
            with arithmetic(self._device, dtype):
                out = self._model(self._session, frame_idx=index, reverse=backwards)
                there = float(out.object_score_logits.float().sigmoid())
                return enlarged(out.pred_masks[0, 0], self._size), there * self._model.overlap

        # Places of prompts would lose a pixel in 16 bits.
        precision = torch.float32 if index == self._request.index else self._dtype
        result = memory_guard(
            "Following the structure", lambda: work(precision), lambda: work(torch.bfloat16)
        )
        self._forget(index, backwards=backwards)
        return result

    @property
    def _tracked(self) -> dict[int, dict[str, object]]:
        """What is remembered of slices that were not prompted."""
        found: dict[int, dict[str, object]] = self._session.output_dict_per_obj[_OBJECT][
            "non_cond_frame_outputs"
        ]
        return found

    def _forget(self, index: int, *, backwards: bool) -> None:
        """Drop what no later slice will look at."""
        config = self._model.config
        reach = max(config.num_maskmem, config.max_object_pointers_in_encoder) - 1
        self._tracked.pop(index + reach if backwards else index - reach, None)
        for part in ("high_res_masks", "pred_masks"):
            self._tracked.get(index, {}).pop(part, None)


class Slices:
    """The slices of a volume as the video model asks for them; none is kept."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], side: int) -> None:
        self._pictures = pictures
        self._side = side

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> torch.Tensor:
        return prepared(self._pictures[index], self._side)


def touching(mask: NDArray[np.bool_], last: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of a mask that touch the last slice's mask, corners included."""
    square = np.ones((3, 3), np.bool_)
    labels, _ = ndimage.label(mask, square)
    reached = np.unique(labels[np.asarray(ndimage.binary_dilation(last, square)) & mask])
    kept: NDArray[np.bool_] = np.isin(labels, reached) & mask
    return kept
