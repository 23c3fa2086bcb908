"""Following a mask from slice to slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_medreasoner.core.masks import box_of_mask, largest_component
from napari_medreasoner.engines.base import Segmenter, SliceMask, VolumeInput
from napari_medreasoner.engines.embedded.crop import Crop
from napari_medreasoner.engines.embedded.walker import (
    Bools,
    Floats,
    grey_evidence,
    share_of,
    smoothed,
    walked,
)

__all__ = ["propagate"]

_SIDE: Final = 96
_MARGIN: Final = 0.35

_RIM: Final = 0.15
"""How far an outline may move from one slice to the next, over the square root of its area."""

_SHRINK: Final = 0.04
"""Structures end: without other evidence each outline lies this much inside the last one."""

_REACH: Final = 0.25
"""Nothing farther outside the last outline is taken, in the same unit."""

_GREY_WEIGHT: Final = 0.7

_LAST: Final = 0.12
"""The structure ends where its area falls below this share of the first slice's."""

_DEPTH: Final = 1.2
"""It is followed this many longer box sides in either direction, in millimetres."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A slice as displayed, and its mask, which is not empty."""

    picture: NDArray[np.uint8]
    mask: Bools


def propagate(segmenter: Segmenter, request: VolumeInput) -> Iterator[SliceMask]:
    """Segment the prompted slice, then follow its mask from slice to slice.

    Each slice's outline is expected near the last one, and its grey levels like those inside
    the masks of the last and of the first slice; the random walker settles the rest.

    Parameters
    ----------
    segmenter : Segmenter
        Of the prompted slice, where its mask is not given.
    request : VolumeInput
        Slices, spacing and span.

    Yields
    ------
    SliceMask
        The prompted slice, then upwards to where the structure ends, then downwards. The score
        of those followed is the mean of |2p - 1| over the mask.

    Raises
    ------
    PromptError
        As the segmenter.
    """
    first = _first(segmenter, request)
    yield first
    if not first.mask.any():
        return
    box = box_of_mask(first.mask)
    longer = max(box.height * request.across[0], box.width * request.across[1])
    reach = int(_DEPTH * longer / request.along)
    index, span = first.index, request.span
    above = range(index + 1, min(index + reach + 1, span.stop))
    below = range(index - 1, max(index - reach, span.start) - 1, -1)
    for way in (above, below):
        yield from _sweep(request.pictures, first, way)


def _first(segmenter: Segmenter, request: VolumeInput) -> SliceMask:
    """Mask and score of the prompted slice; one that the user drew is taken as it is."""
    if request.mask is not None:
        return SliceMask(request.index, request.mask, 1.0)
    picture = segmenter.set_image(request.pictures[request.index])
    found = segmenter.segment(picture, request.prompts)
    return SliceMask(request.index, found.mask, found.score)


def _sweep(
    pictures: Sequence[NDArray[np.uint8]], first: SliceMask, way: range
) -> Iterator[SliceMask]:
    """One slice after the other, until the structure ends."""
    smallest = max(_LAST * int(first.mask.sum()), 4)
    origin = last = _Known(pictures[first.index], first.mask)
    for here in way:
        picture = pictures[here]
        mask, score = _follow(picture, [last, origin])
        if mask.sum() < smallest:
            return
        yield SliceMask(here, mask, score)
        last = _Known(picture, mask)


def _follow(picture: NDArray[np.uint8], known: list[_Known]) -> tuple[Bools, float]:
    """Mask of a slice, which may be empty, and its score; from the last and the first slice."""
    last = known[0].mask
    height, width = last.shape
    crop = Crop.around(box_of_mask(last), width, height, _MARGIN, _SIDE)
    masks = [crop.take_mask(one.mask) for one in known]
    outside = _distance(masks[0])
    values = [smoothed(crop.take(shown)) for shown in (picture, *(one.picture for one in known))]
    nothing = np.zeros_like(masks[0])
    grey = grey_evidence(
        np.stack(values),
        np.stack([nothing, *masks]),
        np.stack([nothing, *(~mask for mask in masks)]),
    )[0]
    share = share_of(-(outside + _SHRINK) / _RIM + _GREY_WEIGHT * grey)
    far = outside > _REACH
    share[far] = 0
    whole = crop.put(walked(values[0], share, nothing, far), (height, width))
    mask = largest_component(np.asarray(ndimage.binary_fill_holes(whole > 0.5)))
    sure = np.abs(2 * whole[mask] - 1)
    return mask, float(sure.mean()) if sure.size else 0.0


def _distance(mask: Bools) -> Floats:
    """Signed distance to the mask's outline, negative inside, over the root of its area."""
    side = max(float(mask.sum()), 1.0) ** 0.5
    signed = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    result: Floats = (signed + mask - 0.5) / side
    return result
