"""Pixels to napari's coordinates and back, on slices along any axis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medreasoner.core.errors import PromptError
from napari_medreasoner.core.geometry import Box, Point, SlicePlane
from napari_medreasoner.gui.coordinates import (
    box_of,
    lies_on,
    point_of,
    positions_of,
    rectangle_of,
    slice_shape,
)

SHAPE = (30, 40, 50)
planes = st.builds(SlicePlane, axis=st.integers(0, 2), index=st.integers(0, 29))
boxes = st.builds(
    lambda x, y, w, h: Box.from_corners(x, y, x + w, y + h),
    st.integers(0, 20), st.integers(0, 20), st.integers(1, 10), st.integers(1, 10),
)  # fmt: skip


@given(planes | st.none(), boxes)
def test_a_box_comes_back(plane, box):
    shape = SHAPE if plane else SHAPE[1:]
    vertices = rectangle_of(box, plane)
    assert vertices.shape == (4, len(shape))
    assert lies_on(vertices, plane)
    assert box_of(vertices, plane, shape) == box
    assert box_of(vertices[[2, 0, 3, 1]], plane, shape) == box


@given(planes | st.none(), boxes, st.floats(-0.49, 0.49), st.floats(-0.49, 0.49))
def test_a_moved_box_keeps_its_size(plane, box, dx, dy):
    shape = SHAPE if plane else SHAPE[1:]
    row, column = (axis for axis in range(len(shape)) if plane is None or axis != plane.axis)
    vertices = rectangle_of(box, plane)
    vertices[:, row] += dy
    vertices[:, column] += dx
    assert box_of(vertices, plane, shape) == box


@given(planes | st.none(), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))))
def test_points_come_back(plane, places):
    shape = SHAPE if plane else SHAPE[1:]
    points = tuple(Point(x=x, y=y, positive=bool(x % 2)) for x, y in places)
    coordinates = positions_of(points, plane, len(shape))
    back = tuple(
        point_of(place, point.positive, plane, shape)
        for place, point in zip(coordinates, points, strict=True)
    )
    assert back == points


def test_a_box_is_clipped_and_a_stray_click_is_none():
    def box(*edges):
        y1, y2, x1, x2 = edges
        return box_of(np.array([[y1, x1], [y1, x2], [y2, x2], [y2, x1]]), None, (10, 20))

    assert box(-5.2, 3.4, 15.1, 40.0) == Box.from_corners(16, 0, 20, 4)
    assert box(2.1, 2.2, 3.0, 9.0) is None
    with pytest.raises(PromptError, match="outside"):
        box(30, 40, 2, 5)


def test_points_are_moved_onto_the_image():
    assert point_of(np.array([-3.0, 99.0]), True, None, (10, 20)) == Point(x=19, y=0)


def test_what_lies_beside_a_slice_does_not_lie_on_it():
    plane = SlicePlane(axis=1, index=4)
    assert lies_on([[0, 4.4, 0], [0, 3.5, 9]], plane)
    assert not lies_on([[0, 4.5, 0]], plane)
    assert slice_shape(SHAPE, plane) == (30, 50)
