"""Following a mask from slice to slice."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_medreasoner.core.masks import box_of_mask, largest_component
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


def propagate(
    slices: NDArray[np.uint8],
    index: int,
    mask: Bools,
    along: float,
    across: tuple[float, float],
) -> Bools:
    """Mask of every slice, from the mask of one.

    Each slice's outline is expected near the last one, and its grey levels like those inside
    the masks of the last and of the first slice; the random walker settles the rest.

    Parameters
    ----------
    slices : ndarray of uint8, shape (slice, row, column, 3)
        As displayed.
    index : int
        The slice whose mask is known.
    mask : ndarray of bool, shape (row, column)
        Not empty.
    along : float
        Millimetres between slices.
    across : tuple of float
        Millimetres between rows and between columns.

    Returns
    -------
    ndarray of bool, shape (slice, row, column)
    """
    box = box_of_mask(mask)
    reach = _DEPTH * max(box.height * across[0], box.width * across[1]) / along
    first, last = max(index - int(reach), 0), min(index + int(reach), len(slices) - 1)
    whole = np.zeros(slices.shape[:3], np.bool_)
    whole[index] = mask
    for way in (range(index + 1, last + 1), range(index - 1, first - 1, -1)):
        _sweep(slices, whole, index, way)
    return whole


def _sweep(slices: NDArray[np.uint8], whole: Bools, index: int, way: range) -> None:
    """Fill in one slice after the other, until the structure ends."""
    smallest = max(_LAST * int(whole[index].sum()), 4)
    for here in way:
        known = [(slices[place], whole[place]) for place in (here - way.step, index)]
        followed = _follow(slices[here], known)
        if followed.sum() < smallest:
            return
        whole[here] = followed


def _follow(picture: NDArray[np.uint8], known: list[tuple[NDArray[np.uint8], Bools]]) -> Bools:
    """Mask of a slice, from the pictures and masks of the last and of the first slice."""
    last = known[0][1]
    height, width = last.shape
    crop = Crop.around(box_of_mask(last), width, height, _MARGIN, _SIDE)
    masks = [crop.take_mask(mask) for _, mask in known]
    outside = _distance(masks[0])
    values = [smoothed(crop.take(shown)) for shown in (picture, *(shown for shown, _ in known))]
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
    return largest_component(np.asarray(ndimage.binary_fill_holes(whole > 0.5)))


def _distance(mask: Bools) -> Floats:
    """Signed distance to the mask's outline, negative inside, over the root of its area."""
    side = max(float(mask.sum()), 1.0) ** 0.5
    signed = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    result: Floats = (signed + mask - 0.5) / side
    return result
