import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_medreasoner.core.errors import ImageError, PromptError
from napari_medreasoner.core.geometry import Box, Grid, Point, Prompts, SlicePlane

coordinate = st.integers(-200, 200)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, y1 = draw(coordinate), draw(coordinate)
    return Box.from_corners(x1, y1, x1 + draw(st.integers(1, 300)), y1 + draw(st.integers(1, 300)))


@given(boxes(), st.integers(1, 150), st.integers(1, 150))
def test_clipping_is_the_intersection_with_the_image(box: Box, width: int, height: int) -> None:
    painted = np.zeros((height, width), dtype=bool)
    rows = slice(max(box.y1, 0), max(box.y2, 0))
    columns = slice(max(box.x1, 0), max(box.x2, 0))
    painted[rows, columns] = True
    if not painted.any():
        with pytest.raises(PromptError, match="outside the image"):
            box.clipped(width, height)
        return
    clipped = box.clipped(width, height)
    again = np.zeros_like(painted)
    again[clipped.slices] = True
    assert np.array_equal(again, painted)
    assert clipped.area == painted.sum()


@pytest.mark.parametrize("corners", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 1, 5, 9)])
def test_an_empty_box_cannot_be_made(corners: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValidationError):
        Box.from_corners(*corners)


def test_a_box_is_max_exclusive() -> None:
    box = Box.from_corners(2, 3, 5, 7)
    assert (box.width, box.height, box.area) == (3, 4, 12)
    assert box.slices == (slice(3, 7), slice(2, 5))
    assert box.padded(1).corners == (1, 2, 6, 8)


def test_prompts_need_something_that_says_where() -> None:
    negative = Point(x=1, y=1, positive=False)
    with pytest.raises(PromptError, match="no box and no positive point"):
        Prompts(points=(negative,)).clipped(10, 10)
    with pytest.raises(PromptError, match="point"):
        Prompts(points=(Point(x=10, y=1),)).clipped(10, 10)
    assert not Prompts(points=(Point(x=9, y=9),)).clipped(10, 10).is_empty


def affines() -> st.SearchStrategy[np.ndarray]:
    numbers = st.floats(-5, 5, allow_nan=False)
    return st.lists(numbers, min_size=12, max_size=12).map(
        lambda values: np.vstack([np.reshape(values, (3, 4)), [0, 0, 0, 1]])
    )


@given(affines(), st.integers(0, 2), st.tuples(*[st.integers(0, 30)] * 3))
def test_pixel_to_patient_and_back(
    affine: np.ndarray, axis: int, place: tuple[int, int, int]
) -> None:
    if abs(np.linalg.det(affine[:3, :3])) < 1e-2:
        return
    grid = Grid((40, 40, 40), affine)
    x, y, index = place
    back = grid.to_pixel(axis, *grid.to_patient(SlicePlane(axis=axis, index=index), x, y))
    assert np.allclose(back, (x, y, index), atol=1e-6)


def test_patient_position_of_a_voxel_is_the_affines() -> None:
    grid = Grid(
        (4, 5, 6), np.array([[-2.0, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    )
    assert grid.spacing == (4.0, 3.0, 2.0)
    assert grid.voxel_volume == pytest.approx(24)
    assert grid.to_patient(SlicePlane(axis=0, index=3), x=1, y=2) == (8, 14, 42)
    assert grid.to_patient(SlicePlane(axis=1, index=2), x=1, y=3) == (8, 14, 42)
    assert grid.to_patient(SlicePlane(axis=2, index=1), x=2, y=3) == (8, 14, 42)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)])
def test_an_unusable_affine_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="geometry"):
        Grid((1, 1, 1), bad)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_plane_cuts_along_its_axis(axis: int) -> None:
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    plane = SlicePlane(axis=axis, index=1)
    assert np.array_equal(plane.cut(volume), volume.take(1, axis=axis))
    colour = np.repeat(volume[..., None], 3, axis=3)
    assert plane.cut(colour).shape == (*volume.take(1, axis=axis).shape, 3)
    with pytest.raises(ImageError, match="does not exist"):
        SlicePlane(axis=axis, index=4).cut(volume)
    with pytest.raises(ImageError, match="two-dimensional"):
        plane.cut(volume[0])
