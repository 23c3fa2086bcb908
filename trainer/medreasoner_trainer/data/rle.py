"""Segmentations of COCO files: polygons and run lengths.

Run lengths go down the columns, from left to right, and start with zeros. Their compressed form
is COCO's own: each length, from the fourth on less the one two before it, in groups of five bits
from the lowest, one character (48 + group, + 32 when more follow) a group, sign-extended. The one
library that decodes it (pycocotools) needs a compiler on some systems, and the format is this
short.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.limits import check_pixels

__all__ = ["mask_of_segmentation", "runs_of_mask"]

_MORE: Final = 0x20
_SIGN: Final = 0x10
_LOW: Final = 0x1F
_GROUPS: Final = 7
"""Groups of five bits that hold any length an image can have."""


def mask_of_segmentation(segmentation: object, width: int, height: int) -> NDArray[np.bool_]:
    """Draw a `segmentation` field.

    Parameters
    ----------
    segmentation : object
        A list of polygons [x, y, x, y, ...] (their union; a pixel belongs where its centre is
        inside), or a dict with "counts" as a list or a compressed string.
    width, height : int
        Of the image.

    Returns
    -------
    ndarray of bool, shape (row, column)

    Raises
    ------
    ReadError
        When it is none of these, or does not fit the image.
    """
    check_pixels("The segmentation", width, height)
    if isinstance(segmentation, list):
        return _drawn(segmentation, width, height)
    if isinstance(segmentation, dict):
        counts: Any = segmentation.get("counts")
        runs = _decompressed(counts) if isinstance(counts, str) else counts
        return _filled(runs, width, height)
    raise ReadError("The segmentation is neither polygons nor run lengths; export it again.")


def _drawn(polygons: list[Any], width: int, height: int) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), np.bool_)
    for corners in polygons:
        try:
            places = np.asarray(corners, np.float64).reshape(-1, 2)
        except (TypeError, ValueError) as error:
            raise ReadError("A polygon is not a list of x, y pairs; export it again.") from error
        if len(places) < 3 or not np.isfinite(places).all():
            raise ReadError("A polygon has fewer than three finite corners; export it again.")
        mask[polygon(places[:, 1] - 0.5, places[:, 0] - 0.5, mask.shape)] = True
    return mask


def _decompressed(text: str) -> list[int]:
    """Lengths of a compressed string."""
    runs: list[int] = []
    value = groups = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 2 * _MORE or groups == _GROUPS:
            raise ReadError("The compressed run lengths are damaged; export them again.")
        value |= (code & _LOW) << (5 * groups)
        groups += 1
        if not code & _MORE:
            value -= (code & _SIGN) << (5 * groups - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = groups = 0
    return runs


def _filled(runs: object, width: int, height: int) -> NDArray[np.bool_]:
    whole = isinstance(runs, list) and all(type(run) is int and run >= 0 for run in runs)
    if not isinstance(runs, list) or not whole or sum(runs) != width * height:
        raise ReadError(
            f"The run lengths do not fill the image of {width} x {height} pixels; export again."
        )
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def runs_of_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Write a mask of shape (row, column) as uncompressed run lengths."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}
