"""Rotary positions of Qwen2.5-VL in numpy, for pictures and for the text around one.

The rules are those of the model's reference implementation in transformers: axial in the vision
tower, and three-fold (time, row, column) in the language model (Qwen2-VL technical report, M-RoPE).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.engines.embedded.patches import MERGE

__all__ = ["picture_rotations", "text_positions", "text_rotations"]

_VISION_BASE: Final = 10_000.0

Floats = NDArray[np.float32]
Rotations = tuple[Floats, Floats]
"""Cosines and sines, each of shape (place, head width)."""


def picture_rotations(grid: tuple[int, int], head: int) -> Rotations:
    """Rotations of a picture's patches, in the order of `patches_of`."""
    down, across = (side // MERGE for side in grid)
    row, column = np.mgrid[: grid[0], : grid[1]]
    ordered = [
        axis.reshape(down, MERGE, across, MERGE).transpose(0, 2, 1, 3).ravel()
        for axis in (row, column)
    ]
    speeds = _VISION_BASE ** -(np.arange(0, head // 2, 2) / (head // 2))
    angles = np.concatenate([place[:, None] * speeds for place in ordered], axis=1)
    return _both(angles)


def text_positions(before: int, grid: tuple[int, int], after: int) -> NDArray[np.int64]:
    """Positions of tokens before, in and after a picture.

    Parameters
    ----------
    before, after : int
        Tokens of text.
    grid : (int, int)
        Patches of the picture, down and across.

    Returns
    -------
    ndarray of int, shape (3, token)
        Time, row and column.
    """
    down, across = (side // MERGE for side in grid)
    row, column = np.mgrid[:down, :across]
    picture = np.stack([np.zeros(row.size, np.int64), row.ravel(), column.ravel()]) + before
    start = before + max(down, across)
    return np.concatenate(
        [_same(0, before), picture, _same(start, after)],
        axis=1,
    )


def _same(start: int, count: int) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(start, start + count), (3, count))


def text_rotations(
    positions: NDArray[np.int64], head: int, base: float, sections: Sequence[int]
) -> Rotations:
    """Rotations of tokens.

    Parameters
    ----------
    positions : ndarray of int, shape (3, token)
        See `text_positions`.
    head : int
        Width of an attention head.
    base : float
        The model's `rope_theta`.
    sections : sequence of int
        Its `mrope_section`: how many speeds follow time, rows and columns.
    """
    speeds = base ** -(np.arange(0, head, 2) / head)
    axis = np.repeat(np.arange(3), sections)
    return _both(positions[axis].T * speeds)


def _both(angles: NDArray[np.floating]) -> Rotations:
    twice = np.concatenate([angles, angles], axis=1)
    return np.cos(twice).astype(np.float32), np.sin(twice).astype(np.float32)
