"""Where layers lie: ours in the patient, those of others as napari shows them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from napari.layers import Layer  # type: ignore[import-untyped]
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging.orientation import axis_letters

__all__ = ["grid_of", "placement", "same_place"]

_DIRECTIONS: Final = {
    "L": "left",
    "R": "right",
    "A": "anterior",
    "P": "posterior",
    "S": "superior",
    "I": "inferior",
}
_MIRRORED: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between LPS and RAS."""


def placement(grid: Grid, axes: int) -> dict[str, Any]:
    """Return where a layer on this grid goes, as options of the layer.

    Each axis of napari's world is one of the image's own, in millimetres from where the patient's
    origin falls on it: for an image that lies straight, millimetres towards superior, posterior
    and left. An oblique one is shown upright, as napari cannot slice along its axes otherwise;
    its true affine stays in the notes. Images of one orientation lie over each other as they do
    in the patient.

    Parameters
    ----------
    grid : Grid
        One whose geometry is not known is left to napari: one unit a pixel.
    axes : int
        2 or 3: the last ones of (slice, row, column).
    """
    if not grid.known:
        return {}
    steps = grid.affine[:3, :3]
    offsets = grid.affine[:3, 3] @ (steps / np.linalg.norm(steps, axis=0))
    names = [_DIRECTIONS[letter] for letter in reversed(axis_letters(grid.affine))]
    return {
        "scale": grid.spacing[-axes:],
        "translate": offsets[::-1][-axes:],
        "units": ("mm",) * axes,
        "axis_labels": tuple(names[-axes:]),
    }


def same_place(layer: Layer) -> dict[str, Any]:
    """Return the whole transform of a layer, as options of a layer over it."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def grid_of(layer: Layer) -> Grid:
    """Return where napari shows the voxels of an image or labels layer.

    Its world is taken as it is displayed: columns towards the patient's left, rows towards
    posterior, slices towards superior. Whatever the layer's scale, translation, rotation, shear
    and affine, a voxel's centre comes out where `Layer.data_to_world` puts it.

    Raises
    ------
    ImageError
        When the layer is no picture and no volume, or its transform cannot be undone.
    """
    if layer.ndim not in (2, 3):
        raise ImageError(
            f'"{layer.name}" has {layer.ndim} dimensions; split it into single volumes '
            "(right-click on the layer, Split Stack)."
        )
    matrix = _data_to_world(layer)
    factors = [_millimetres(unit) for unit in layer.units]
    known = all(factor is not None for factor in factors)
    if known:
        matrix = np.diag([factor or 1.0 for factor in factors] + [1.0]) @ matrix
    if layer.ndim == 2:
        volume = np.eye(4)
        volume[1:, 1:] = matrix
        matrix = volume
    # From (slice, row, column) to (column, row, slice).
    reorder = np.array([2, 1, 0, 3])
    slices, rows, columns = (1, *layer.data.shape[: layer.ndim])[-3:]
    affine = _MIRRORED @ matrix[np.ix_(reorder, reorder)]
    return Grid((slices, rows, columns), affine, known=known)


def _data_to_world(layer: Layer) -> NDArray[np.float64]:
    """Homogeneous matrix of the layer's whole transform, read off at the unit vectors."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), np.float64)
    matrix = np.eye(layer.ndim + 1)
    for axis, unit in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(unit)) - origin
    matrix[:-1, -1] = origin
    return matrix


def _millimetres(unit: Any) -> float | None:
    """Length of a unit in mm; None when it is no length, as a pixel."""
    return float((1 * unit).to("mm").magnitude) if unit.is_compatible_with("mm") else None
