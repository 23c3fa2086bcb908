"""The way between pixels of the image and a model's own numbers, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from napari_medreasoner.engines.reasoners.coordinates import (
    INSTRUCTIONS,
    Space,
    sides_in_patches,
    space_of,
)

CONVENTIONS = ("pixels", "resized pixels", "norm1000", "norm1000 yx", "norm1")

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)
numbers = st.floats(-10_000, 10_000)
spaces = st.builds(space_of, st.sampled_from(CONVENTIONS), sizes, sizes)


@given(spaces, st.tuples(numbers, numbers), st.tuples(numbers, numbers))
def test_there_and_back(space: Space, low: tuple[float, float], high: tuple[float, float]) -> None:
    box = (*low, *high)
    assert space.box_to_image(space.box_from_image(box)) == pytest.approx(box, abs=1e-6)
    assert space.box_from_image(space.box_to_image(box)) == pytest.approx(box, abs=1e-6)
    assert space.point_to_image(space.point_from_image(low)) == pytest.approx(low, abs=1e-6)
    assert space.point_from_image(space.point_to_image(low)) == pytest.approx(low, abs=1e-6)


@given(spaces)
def test_the_whole_image_is_the_whole_image(space: Space) -> None:
    width, height = space.image
    across, down = space.size
    whole = (0, 0, down, across) if space.y_first else (0, 0, across, down)
    assert space.box_to_image(whole) == pytest.approx((0, 0, width, height))


@given(spaces, st.data())
def test_every_pixel_is_found_again_from_rounded_numbers(space: Space, data: st.DataObject) -> None:
    """Numbers are cut to as many decimals as tell 5000 pixels apart."""
    width, height = space.image
    pixel = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    first, second = (round(number, 5) for number in space.point_from_image(pixel))
    found = space.point_to_image((first, second))
    assert max(abs(a - b) for a, b in zip(found, pixel, strict=True)) < 0.5


@pytest.mark.parametrize(
    ("convention", "box", "point"),
    [
        ("pixels", (40, 10, 80, 30), (50, 20)),
        ("resized pixels", (80, 20, 160, 60), (100.5, 40.5)),
        ("norm1000", (200, 100, 400, 300), (252.5, 205)),
        ("norm1000 yx", (100, 200, 300, 400), (205, 252.5)),
        ("norm1", (0.2, 0.1, 0.4, 0.3), (0.2525, 0.205)),
    ],
)
def test_what_a_model_writes(
    convention: str, box: tuple[float, ...], point: tuple[float, ...]
) -> None:
    space = space_of(convention, (200, 100), (400, 200))
    assert space.box_to_image(box) == pytest.approx((40, 10, 80, 30))
    assert space.box_from_image((40, 10, 80, 30)) == pytest.approx(box)
    assert space.point_to_image(point) == pytest.approx((50, 20))
    assert space.point_from_image((50, 20)) == pytest.approx(point)


def test_only_what_a_template_cannot_say_is_added() -> None:
    assert "y before x" in INSTRUCTIONS["norm1000 yx"]
    assert "fractions" in INSTRUCTIONS["norm1"]
    assert set(INSTRUCTIONS) == {"norm1000 yx", "norm1"}


@pytest.mark.parametrize("width", [1, 20, 28, 55, 56, 57, 140, 150, 512, 1024, 3000])
@pytest.mark.parametrize("height", [20, 28, 31, 84, 90, 840, 1003, 2048])
def test_the_processor_leaves_whole_patches_alone(width: int, height: int) -> None:
    """With the limits that Qwen2.5-VL is published with, but for the largest picture."""
    across, down = sides_in_patches(width, height)
    kept = smart_resize(down, across, factor=28, min_pixels=56 * 56, max_pixels=1280 * 28 * 28)
    assert kept == (down, across)
