from math import pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.metrics import (
    box_iou,
    corners_iou,
    dice,
    points_dice,
    points_dice_released,
)

point = st.builds(Point, x=st.integers(0, 100), y=st.integers(0, 100))
pair = st.tuples(point, point)


def box(x1: int, y1: int, x2: int, y2: int) -> Box:
    return Box.from_corners(x1, y1, x2, y2)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (box(0, 0, 10, 10), box(0, 0, 10, 10), 1.0),
        (box(0, 0, 10, 10), box(5, 0, 15, 10), 50 / 150),
        (box(0, 0, 10, 10), box(10, 0, 20, 10), 0.0),
        (box(0, 0, 10, 10), box(2, 2, 4, 4), 4 / 100),
    ],
)
def test_box_iou_counts_pixels(a: Box, b: Box, expected: float) -> None:
    assert box_iou(a, b) == pytest.approx(expected)
    assert box_iou(b, a) == pytest.approx(expected)


def test_dice() -> None:
    a, b = np.zeros((2, 4), dtype=bool), np.zeros((2, 4), dtype=bool)
    assert dice(a, b) == 1
    a[0] = True
    b[:, 0] = True
    assert dice(a, b) == pytest.approx(2 * 1 / (4 + 2))
    with pytest.raises(ValueError, match="shapes"):
        dice(a, b[:, :2])


@given(pair, pair)
def test_points_dice_is_a_symmetric_share(a: tuple[Point, Point], b: tuple[Point, Point]) -> None:
    value = points_dice(a, b)
    assert 0 <= value <= 1 + 1e-9
    assert value == pytest.approx(points_dice(b, a))
    assert value == pytest.approx(points_dice((a[1], a[0]), b))
    assert points_dice(a, a) == pytest.approx(1)


@given(pair, pair)
def test_points_dice_equals_the_area_counted_on_a_fine_grid(
    a: tuple[Point, Point], b: tuple[Point, Point]
) -> None:
    def disc(points: tuple[Point, Point]) -> tuple[np.ndarray, float]:
        centre = [(points[0].x + points[1].x) / 2, (points[0].y + points[1].y) / 2]
        radius = np.hypot(points[0].x - points[1].x, points[0].y - points[1].y) / 2
        x, y = np.meshgrid(np.linspace(-80, 180, 900), np.linspace(-80, 180, 900))
        return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2, radius

    (disc_a, ra), (disc_b, rb) = disc(a), disc(b)
    if min(ra, rb) < 10:
        return
    cell = (260 / 899) ** 2
    expected = 2 * (disc_a & disc_b).sum() * cell / (pi * (ra**2 + rb**2))
    assert points_dice(a, b) == pytest.approx(expected, abs=0.03)


def test_points_without_extent() -> None:
    here, there = Point(x=1, y=1), Point(x=2, y=1)
    assert points_dice((here, here), (here, here)) == 1
    assert points_dice((here, here), (there, there)) == 0


@given(pair, pair)
def test_the_released_points_dice_is_twice_the_jaccard(
    a: tuple[Point, Point], b: tuple[Point, Point]
) -> None:
    value, true = points_dice_released(a, b), points_dice(a, b)
    assert 0 <= value <= 2 + 1e-9
    assert points_dice_released(a, a) == pytest.approx(2)
    if a[0] != a[1] and b[0] != b[1]:
        # A Dice of D is a Jaccard of D/(2-D).
        assert value == pytest.approx(2 * true / (2 - true), abs=1e-3)


def test_circles_that_touch_from_inside() -> None:
    """Radius 5 in radius 10, touching: the cosines of the lens are 1 but for rounding."""
    outer = (Point(x=0, y=0), Point(x=12, y=16))
    inner = (Point(x=0, y=0), Point(x=6, y=8))
    assert points_dice(outer, inner) == pytest.approx(2 * 25 / (100 + 25))
    assert points_dice_released(outer, inner) == pytest.approx(2 * 25 / 100, abs=1e-5)


def test_corners_need_not_be_whole_or_in_order() -> None:
    assert corners_iou((0, 0, 1, 1), (0.5, 0, 1.5, 1)) == pytest.approx(1 / 3)
    assert corners_iou((0, 0, 9, 9), (0, 0, 9, 4), extent=1) == pytest.approx(0.5)
    assert corners_iou((9, 9, 0, 0), (0, 0, 9, 9)) == 0
