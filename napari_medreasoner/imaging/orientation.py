"""Turning an image to how it is displayed: to Superior, Posterior and Left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging.volume import SourceGrid, Volume

__all__ = ["axis_letters", "corners", "directions", "displayed"]

_T = TypeVar("_T")

_SKEW: Final = 1e-3
"""Largest cosine between two axes that are shown at right angles without a word."""


def axis_letters(affine: NDArray[np.float64]) -> str:
    """Directions in which the three axes run, as in "LPS" for Left, Posterior, Superior."""
    letters = (("L", "R"), ("P", "A"), ("I", "S"))
    return "".join(letters[world][forwards] for world, forwards in directions(affine))


def directions(affine: NDArray[np.float64]) -> list[tuple[int, bool]]:
    """Patient axis (0 right, 1 anterior, 2 superior) that each file axis runs along, and its sense.

    The nearest rotation decides (polar decomposition), the axis that is clearest first. The
    same as `nibabel.orientations.io_orientation`, without the time to import nibabel.

    Parameters
    ----------
    affine : ndarray of float64, shape (4, 4)
        Index (i, j, k) to RAS millimetres.

    Returns
    -------
    list of (int, bool)
        For i, j and k; True where the patient coordinate grows with the index.

    Raises
    ------
    ImageError
        When an axis has no direction.
    """
    matrix = affine[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    left, scales, right = np.linalg.svd(matrix / np.where(lengths == 0, 1, lengths))
    kept = scales > scales.max() * 3 * np.finfo(scales.dtype).eps
    rotation = left[:, kept] @ right[kept]
    found = {}
    for axis in np.argsort(np.min(-(rotation**2), axis=0), kind="stable").tolist():
        column = rotation[:, axis]
        if np.allclose(column, 0):
            raise ImageError("An axis of the image has no direction.")
        world = int(np.argmax(np.abs(column)))
        found[axis] = (world, bool(column[world] > 0))
        rotation[world] = 0
    return [found[axis] for axis in range(3)]


def corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Homogeneous indices of the eight corner voxels, shape (8, 4)."""
    ends = [(0, size - 1) for size in shape[:3]]
    return np.array(list(product(*ends, (1,))), dtype=np.float64)


def displayed(array: NDArray[Any], affine: NDArray[np.float64], *, code: int, name: str) -> Volume:
    """Turn an array in the file's own axes to display orientation.

    The voxels are permuted and flipped, never resampled or copied: the array is a view.
    `Volume.source` undoes it. A volume of one slice becomes a 2D image. Axes that are not at
    right angles are told of in `Volume.warnings`, as no display of theirs has true proportions.

    Parameters
    ----------
    array : ndarray, shape (i, j, k) or (i, j, k, 3)
        In the axes that `affine` takes; for DICOM (column, row, slice).
    affine : ndarray of float64, shape (4, 4)
        Index (i, j, k) to RAS millimetres.
    code : int
        NIfTI sform code; 0 when the file gave no geometry and `affine` is assumed.
    name : str
        For the user.

    Raises
    ------
    ImageError
        When the affine cannot be used.
    """
    Grid((1, 1, 1), affine)
    ways = directions(affine)
    worlds = [world for world, _ in ways]
    axes = _three([worlds.index(world) for world in range(3)])
    # From RAS to the displayed Left, Posterior, Superior two world axes run backwards.
    wanted = zip(axes, (False, False, True), strict=True)
    flips = _three([ways[axis][1] is not forwards for axis, forwards in wanted])
    source = SourceGrid(_three(array.shape), affine, code, axes, flips)
    columns_first: NDArray[Any] = array.transpose(*axes, *range(3, array.ndim))
    turned = np.flip(columns_first, tuple(axis for axis in range(3) if flips[axis]))
    shown = turned.swapaxes(0, 2)
    grid = Grid(_three(shown.shape), _displayed_affine(source), known=code > 0)
    picture = shown[0] if shown.shape[0] == 1 else shown
    return Volume(picture, grid, name, source=source, warnings=_skew_warnings(affine))


def _skew_warnings(affine: NDArray[np.float64]) -> tuple[str, ...]:
    """A sentence on axes that are not at right angles."""
    steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosine = float(np.abs(steps.T @ steps - np.eye(3)).max())
    if cosine <= _SKEW:
        return ()
    angle = math.degrees(math.acos(min(cosine, 1.0)))
    sentence = (
        f"Two axes of the image meet at {angle:.1f} degrees and are shown at right angles; masks "
        "are saved and measured in their true place."
    )
    return (sentence,)


def _three(values: Sequence[_T]) -> tuple[_T, _T, _T]:
    first, second, third = values[:3]
    return first, second, third


def _displayed_affine(source: SourceGrid) -> NDArray[np.float64]:
    """Displayed voxel index (column, row, slice) to RAS millimetres."""
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1.0
    for shown, (axis, flip) in enumerate(zip(source.axes, source.flips, strict=True)):
        to_file[axis, shown] = -1.0 if flip else 1.0
        to_file[axis, 3] = source.shape[axis] - 1 if flip else 0.0
    return source.affine @ to_file
