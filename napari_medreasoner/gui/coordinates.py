"""Boxes and points as napari draws them, and back.

napari puts the centre of pixel (x, y) at the coordinate (y, x), so the edges of the
max-exclusive box x1..x2 lie at x1 - 0.5 and x2 - 0.5. In a volume the coordinate along the
plane's axis is its index.
"""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_medreasoner.core.geometry import Box, Point, SlicePlane

__all__ = ["box_of", "lies_on", "point_of", "positions_of", "rectangle_of", "slice_shape"]


def _in_plane(plane: SlicePlane | None) -> tuple[int, int]:
    """Array axes of the rows and columns."""
    if plane is None:
        return 0, 1
    row, column = (axis for axis in range(3) if axis != plane.axis)
    return row, column


def _place(plane: SlicePlane | None, row: float, column: float) -> list[float]:
    position = [row, column]
    if plane is not None:
        position.insert(plane.axis, plane.index)
    return position


def slice_shape(shape: tuple[int, ...], plane: SlicePlane | None) -> tuple[int, int]:
    """Rows and columns of a slice of an image of this spatial shape."""
    row, column = _in_plane(plane)
    return shape[row], shape[column]


def rectangle_of(box: Box, plane: SlicePlane | None) -> NDArray[np.float64]:
    """Four vertices of the box, shape (4, axes of the image)."""
    top, bottom, left, right = box.y1 - 0.5, box.y2 - 0.5, box.x1 - 0.5, box.x2 - 0.5
    corners = ((top, left), (top, right), (bottom, right), (bottom, left))
    return np.array([_place(plane, row, column) for row, column in corners])


def positions_of(
    points: tuple[Point, ...], plane: SlicePlane | None, ndim: int
) -> NDArray[np.float64]:
    """Coordinates of the points, shape (points, axes of the image)."""
    places = [_place(plane, point.y, point.x) for point in points]
    return np.array(places, dtype=np.float64).reshape(len(points), ndim)


def lies_on(coordinates: ArrayLike, plane: SlicePlane | None) -> bool:
    """Whether every coordinate is nearest to this slice (always in a 2D image)."""
    if plane is None:
        return True
    along: NDArray[Any] = np.atleast_2d(coordinates)[:, plane.axis]
    return bool((np.floor(along + 0.5) == plane.index).all())


def box_of(vertices: NDArray[Any], plane: SlicePlane | None, shape: tuple[int, ...]) -> Box | None:
    """Axis-aligned box around any shape, its edges on the nearest pixel borders, clipped.

    Returns
    -------
    Box or None
        None when the shape is thinner than a pixel: a click, not a box.

    Raises
    ------
    PromptError
        When all of it lies outside the image.
    """
    flat = vertices[:, _in_plane(plane)]
    y1, x1 = (floor(edge + 1.0) for edge in flat.min(axis=0))
    y2, x2 = (floor(edge + 1.0) for edge in flat.max(axis=0))
    if x2 <= x1 or y2 <= y1:
        return None
    height, width = slice_shape(shape, plane)
    return Box.from_corners(x1, y1, x2, y2).clipped(width, height)


def point_of(
    coordinate: NDArray[Any], positive: bool, plane: SlicePlane | None, shape: tuple[int, ...]
) -> Point:
    """Pixel nearest to a coordinate, moved onto the image if it lies beside it."""
    row, column = (floor(coordinate[axis] + 0.5) for axis in _in_plane(plane))
    height, width = slice_shape(shape, plane)
    return Point(
        x=min(max(column, 0), width - 1), y=min(max(row, 0), height - 1), positive=positive
    )
