from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.imaging.volume import Volume, plain_grid
from napari_medreasoner.imaging.window import (
    PRESETS,
    auto_window,
    default_window,
    model_picture,
    preset_window,
    presets_for,
    to_rgb,
    to_uint8,
)

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


def test_presets_are_for_ct_in_hounsfield_units_alone() -> None:
    array = np.array([[-1000, -50, 60, 900]], dtype=np.int16)

    def offered(array: np.ndarray, modality: str) -> Any:
        return presets_for(Volume(array, plain_grid(array.shape), "x", modality))

    assert offered(array, "CT") is PRESETS
    assert not offered(array, "MRI")
    assert not offered(array.clip(0), "CT")
    assert preset_window("lung") == (-1350, 150)
    assert preset_window("bone") == (-500, 1300)
    assert preset_window("brain") == (0, 80)
    assert preset_window("mediastinum") == (-125, 225)
    # What is black or white in one is told apart in another: the reason there are several.
    lung, brain = (to_uint8(array, preset_window(name)) for name in ("lung", "brain"))
    assert lung.tolist() == [[59, 221, 239, 255]]
    assert brain.tolist() == [[0, 0, 191, 255]]


@given(images, st.integers(1, 14))
def test_a_thumbnail_is_the_picture_shrunk_and_never_enlarged(image: np.ndarray, side: int) -> None:
    whole = to_rgb(to_uint8(image, (0, 100)))
    small = model_picture(image, (0, 100), side)
    assert small.dtype == np.uint8
    assert max(small.shape[:2]) == min(side, max(image.shape))
    assert whole.min() <= small.min() <= small.max() <= whole.max()


def test_a_thumbnail_averages_areas() -> None:
    image = np.kron(np.array([[0, 50], [100, 200]], dtype=np.int16), np.ones((4, 4), np.int16))
    small = model_picture(image, (0, 100), 2)
    assert small[..., 0].tolist() == [[0, 127], [255, 255]]
    stripes = np.tile(np.array([0, 100], dtype=np.int16), (8, 4))
    assert set(model_picture(stripes, (0, 100), 4).ravel()) <= {127, 128}
