from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.imaging.volume import Volume, plain_grid
from napari_medreasoner.imaging.window import auto_window, default_window, to_rgb, to_uint8

images = hnp.arrays(
    st.sampled_from([np.uint8, np.int16, np.uint16, np.float32]),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
)


@given(images, st.none() | st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)))
def test_any_image_becomes_a_picture(image: np.ndarray, window: tuple[float, float] | None) -> None:
    if window is None and not np.isfinite(image).any():
        with pytest.raises(ImageError, match="no finite value"):
            auto_window(image)
        return
    picture = to_rgb(to_uint8(image, window))
    assert picture.dtype == np.uint8
    assert picture.shape == (*image.shape, 3)


def test_a_window_maps_its_ends_to_black_and_white() -> None:
    image = np.array([[-2000, -160, 40, 240, 3000]], dtype=np.int16)
    assert to_uint8(image, (-160, 240)).tolist() == [[0, 0, 127, 255, 255]]


def test_nan_is_black_and_infinity_white() -> None:
    image = np.array([[np.nan, 0, 10, np.inf, -np.inf]], dtype=np.float32)
    assert to_uint8(image, (0, 10)).tolist() == [[0, 0, 255, 255, 0]]


def test_an_8_bit_picture_is_left_alone() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(to_uint8(image, None), image)


def test_a_swapped_window_shows_high_values_dark() -> None:
    image = np.array([[0, 50, 100]], dtype=np.int16)
    assert to_uint8(image, (100, 0)).tolist() == [[255, 127, 0]]


def test_what_is_shown_when_nothing_was_chosen() -> None:
    array = np.array([[-1000, -50, 60, 900]], dtype=np.int16)

    def shown(array: np.ndarray, modality: str = "CT", **more: Any) -> tuple[float, float]:
        return default_window(Volume(array, plain_grid(array.shape), "x", modality, **more))

    assert shown(array) == (-160, 240)
    assert shown(array, "MRI") == auto_window(array)
    assert shown(array.clip(0)) == auto_window(array.clip(0))
    assert shown(array.astype(np.uint8)) == (0, 255)
    assert shown(array, window=(-50.0, 60.0)) == (-50, 60)
    assert shown(array, inverted=True) == (240, -160)
