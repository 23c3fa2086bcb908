"""Windows of pictures: what the network sees lies where it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.engines.embedded.window import (
    SIDE,
    Window,
    appearance,
    prompt_planes,
    sampled,
)

boxes = st.builds(
    lambda x, y, w, h: Box.from_corners(x, y, x + w, y + h),
    st.integers(0, 200),
    st.integers(0, 150),
    st.integers(1, 100),
    st.integers(1, 100),
)


@given(boxes, st.floats(1.0, 3.0))
def test_a_box_lies_in_the_middle_of_its_window(box: Box, margin: float) -> None:
    x1, y1, x2, y2 = Window.around(box, margin).corners(box)
    assert (x1 + x2) / 2 == pytest.approx(SIDE / 2)
    assert (y1 + y2) / 2 == pytest.approx(SIDE / 2)
    assert max(x2 - x1, y2 - y1) <= SIDE / margin + 1e-6


@given(boxes)
def test_what_is_cut_out_is_put_back_where_it_was(box: Box) -> None:
    """A filled box, seen through its window and put back, is that box but for its rim."""
    picture = np.zeros((256, 304), np.uint8)
    picture[box.slices] = 255
    window = Window.around(box, 1.5)
    seen = np.asarray(sampled(Image.fromarray(picture), window.affine), np.float32) / 255
    back = window.put(seen, 304, 256, 0.0) > 0.5
    truth = picture > 0
    assert np.count_nonzero(back ^ truth) <= 2 * (box.width + box.height) + 4
    assert back[box.y1 + box.height // 2, box.x1 + box.width // 2]


def test_outside_the_window_there_is_what_was_said() -> None:
    window = Window(40.0, 40.0, 20.0)
    plane = window.put(np.full((SIDE, SIDE), 5.0, np.float32), 100, 100, -12.0)
    assert plane.shape == (100, 100)
    assert plane[50, 50] == pytest.approx(5)
    assert plane[10, 10] == plane[90, 50] == -12


@given(boxes, st.integers(0, 303), st.integers(0, 255))
def test_a_point_is_painted_on_its_pixel(box: Box, x: int, y: int) -> None:
    window = Window.around(box, 3.0)
    spots = window.spots((Point(x=x, y=y), Point(x=0, y=0, positive=False)), positive=True)
    assert len(spots) == 1
    plane = prompt_planes(None, spots, (), None)[1]
    across, down = spots[0]
    if 0 <= across < SIDE and 0 <= down < SIDE:
        row, column = np.unravel_index(int(plane.argmax()), plane.shape)
        assert (row, column) == (int(down), int(across)) or plane[int(down), int(across)] > 0.98


def test_prompts_that_are_not_given_leave_their_planes_empty() -> None:
    assert not prompt_planes(None, (), (), None).any()
    planes = prompt_planes((40, 40, 120, 100), (), (), np.full((SIDE, SIDE), 0.5, np.float32))
    assert (planes[0] > 0).sum() == 80 * 60
    assert planes[0].min() == -1
    assert not planes[3].any()


def test_colours_have_mean_zero_and_deviation_one_where_there_is_a_picture() -> None:
    draw = np.random.default_rng(0)
    rgb = draw.integers(100, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    inside = np.ones((SIDE, SIDE), np.bool_)
    inside[:, :60] = False
    planes = appearance(rgb, inside)
    seen = planes[:3][:, inside]
    assert abs(float(seen.mean())) < 1e-4
    assert float(seen.std()) == pytest.approx(1, abs=1e-3)
    assert not planes[:3][:, ~inside].any()
    assert (planes[3] == inside).all()


def test_an_even_window_is_even() -> None:
    planes = appearance(np.full((SIDE, SIDE, 3), 80, np.uint8), np.ones((SIDE, SIDE), np.bool_))
    assert not planes[:3].any()
