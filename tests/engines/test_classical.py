"""The classical segmenter: prompts respected, clicks followed, slices extended."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_medreasoner.core.errors import PromptError
from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.masks import key_points_of_mask
from napari_medreasoner.core.metrics import dice
from napari_medreasoner.engines.base import (
    Segmentation,
    SliceMask,
    VolumeInput,
    VolumeSegmenter,
)
from napari_medreasoner.engines.embedded.classical import ClassicalSegmenter

BOX = Box.from_corners(50, 40, 110, 100)


@pytest.fixture(scope="module")
def segmenter() -> ClassicalSegmenter:
    return ClassicalSegmenter()


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside: NDArray[np.bool_] = np.hypot(columns - x, rows - y) <= radius
    return inside


def painted(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 8, mask.shape)
    grey = np.clip(np.where(mask, 180, 70) + noise, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def run(
    segmenter: ClassicalSegmenter, image: NDArray[np.uint8], *points: Point, box: Box | None = BOX
) -> Segmentation:
    return segmenter.segment(segmenter.set_image(image), Prompts(box=box, points=points))


def test_is_a_volume_segmenter(segmenter: ClassicalSegmenter) -> None:
    assert isinstance(segmenter, VolumeSegmenter)
    assert segmenter.info.name == "classical"
    assert segmenter.info.volumes


def test_follows_a_disc_better_than_the_filled_box(segmenter: ClassicalSegmenter) -> None:
    truth = disc((160, 160), 80, 70, 29)
    filled = np.zeros_like(truth)
    filled[BOX.slices] = True
    found = run(segmenter, painted(truth))
    assert dice(found.mask, truth) > dice(filled, truth) + 0.05
    assert 0.5 < found.score <= 1


def test_stays_in_the_box(segmenter: ClassicalSegmenter) -> None:
    truth = disc((160, 160), 80, 70, 60)
    found = run(segmenter, painted(truth), Point(x=80, y=70), Point(x=60, y=70))
    outside = found.mask.copy()
    outside[BOX.slices] = False
    assert found.mask.any()
    assert not outside.any()


def test_a_third_positive_point_adds(segmenter: ClassicalSegmenter) -> None:
    image = painted(disc((160, 160), 72, 72, 20))
    image[disc((160, 160), 105, 45, 4)] = 95
    points = (Point(x=72, y=72), Point(x=62, y=72))
    before = run(segmenter, image, *points).mask
    after = run(segmenter, image, *points, Point(x=105, y=45)).mask
    assert not before[45, 105]
    assert after[44:47, 104:107].all()
    assert after[72, 72]


def test_moving_a_positive_point_moves_the_mask(segmenter: ClassicalSegmenter) -> None:
    image = painted(disc((160, 160), 63, 70, 10) | disc((160, 160), 97, 70, 10))
    left = run(segmenter, image, Point(x=63, y=70), Point(x=58, y=70)).mask
    right = run(segmenter, image, Point(x=97, y=70), Point(x=102, y=70)).mask
    assert np.nonzero(left)[1].mean() < np.nonzero(right)[1].mean()
    assert left[70, 58]
    assert right[70, 102]


def test_a_negative_point_removes(segmenter: ClassicalSegmenter) -> None:
    image = painted(disc((160, 160), 80, 70, 29))
    before = run(segmenter, image, Point(x=75, y=70)).mask
    after = run(segmenter, image, Point(x=75, y=70), Point(x=100, y=70, positive=False)).mask
    assert before[70, 100]
    assert not after[70, 100]
    assert after.sum() < before.sum()
    assert after[70, 75]


def test_a_negative_point_in_the_middle_leaves_a_hole(segmenter: ClassicalSegmenter) -> None:
    image = painted(disc((160, 160), 80, 70, 29))
    found = run(segmenter, image, Point(x=80, y=50), Point(x=80, y=70, positive=False)).mask
    assert not found[70, 80]
    assert found[50, 80]


def test_points_alone_choose_an_extent(segmenter: ClassicalSegmenter) -> None:
    rows, columns = np.ogrid[:200, :200]
    truth = ((columns - 100) / 45) ** 2 + ((rows - 90) / 22) ** 2 <= 1
    found = run(segmenter, painted(truth), *key_points_of_mask(truth), box=None)
    assert found.mask[90, 100]
    assert dice(found.mask, truth) > 0.7


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (5, 400)])
def test_small_and_flat_images(segmenter: ClassicalSegmenter, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    for prompts in (
        Prompts(box=Box.from_corners(0, 0, shape[1], shape[0])),
        Prompts(points=(Point(x=shape[1] - 1, y=shape[0] - 1),)),
        Prompts(points=(Point(x=0, y=0), Point(x=shape[1] // 2, y=0, positive=False))),
    ):
        found = segmenter.segment(segmenter.set_image(image), prompts)
        assert found.mask.shape == shape
        assert found.mask.any() or not prompts.points[-1].positive
        assert 0 <= found.score <= 1


def test_a_one_pixel_box(segmenter: ClassicalSegmenter) -> None:
    image = painted(disc((160, 160), 80, 70, 29))
    found = run(segmenter, image, box=Box.from_corners(80, 70, 81, 71)).mask
    assert found.sum() == 1
    assert found[70, 80]


def test_colour_and_determinism(segmenter: ClassicalSegmenter) -> None:
    truth = disc((160, 160), 80, 70, 29)
    image = np.where(truth[..., None], [170, 60, 60], [60, 120, 60]).astype(np.uint8)
    first, second = run(segmenter, image), run(ClassicalSegmenter(), image)
    assert dice(first.mask, truth) > 0.9
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.score == second.score


def ball() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    z, y, x = np.ogrid[:24, :60, :60]
    truth: NDArray[np.bool_] = ((z - 12) * 2) ** 2 + (y - 30) ** 2 + (x - 28) ** 2 <= 15**2
    noise = np.random.default_rng(0).normal(0, 6, truth.shape)
    return np.clip(np.where(truth, 170, 80) + noise, 0, 255).astype(np.uint8), truth


def grown(
    segmenter: ClassicalSegmenter,
    volume: NDArray[np.uint8],
    index: int,
    prompts: Prompts,
    spacing: tuple[float, float, float] = (2.0, 1.0, 1.0),
    span: range | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> dict[int, SliceMask]:
    """What `propagate` yields along the first axis, by slice."""
    pictures = volume if volume.ndim == 4 else np.repeat(volume[..., None], 3, axis=-1)
    request = VolumeInput(
        pictures=list(pictures),
        index=index,
        prompts=prompts,
        along=spacing[0],
        across=spacing[1:],
        span=range(len(volume)) if span is None else span,
        mask=mask,
    )
    return {one.index: one for one in segmenter.propagate(request)}


def stacked(found: dict[int, SliceMask], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    whole = np.zeros(shape, np.bool_)
    for one in found.values():
        whole[one.index] = one.mask
    return whole


@pytest.mark.parametrize(
    ("axis", "index", "box"),
    [
        (0, 12, Box.from_corners(13, 15, 44, 46)),
        (1, 30, Box.from_corners(13, 4, 44, 20)),
        (2, 28, Box.from_corners(15, 4, 46, 20)),
    ],
)
def test_a_slice_grows_through_the_volume(
    segmenter: ClassicalSegmenter, axis: int, index: int, box: Box
) -> None:
    volume, truth = (np.moveaxis(array, axis, 0) for array in ball())
    along, *across = (2.0, *(1.0, 1.0)) if axis == 0 else (1.0, 2.0, 1.0)
    found = grown(segmenter, volume, index, Prompts(box=box), (along, across[0], across[1]))
    flat = np.repeat(volume[index][..., None], 3, axis=-1)
    expected = segmenter.segment(segmenter.set_image(flat), Prompts(box=box))
    assert next(iter(found)) == index
    np.testing.assert_array_equal(found[index].mask, expected.mask)
    assert dice(stacked(found, truth.shape), truth) > 0.8
    assert all(0 <= one.score <= 1 for one in found.values())


def test_a_colour_volume_and_a_flat_one(segmenter: ClassicalSegmenter) -> None:
    flat = np.full((5, 30, 30, 3), 40, np.uint8)
    found = grown(segmenter, flat, 2, Prompts(box=Box.from_corners(5, 5, 25, 25)))
    assert found[2].mask.any()


def test_a_structure_ends_where_it_ends(segmenter: ClassicalSegmenter) -> None:
    volume, truth = ball()
    found = grown(segmenter, volume, 12, Prompts(box=Box.from_corners(13, 15, 44, 46)))
    assert not {0, 1, 2, 22, 23} & set(found)
    assert stacked(found, truth.shape)[truth.any(axis=(1, 2))].any(axis=(1, 2)).sum() >= 11


def test_it_stays_in_its_span_and_takes_a_drawn_mask(segmenter: ClassicalSegmenter) -> None:
    volume, truth = ball()
    found = grown(segmenter, volume, 12, Prompts(), span=range(10, 14), mask=truth[12])
    assert set(found) == {10, 11, 12, 13}
    np.testing.assert_array_equal(found[12].mask, truth[12])
    assert grown(segmenter, volume, 12, Prompts(), mask=np.zeros_like(truth[12])).keys() == {12}


def test_refuses_what_is_not_there(segmenter: ClassicalSegmenter) -> None:
    with pytest.raises(PromptError, match="no box"):
        grown(segmenter, np.zeros((5, 30, 30), np.uint8), 2, Prompts())
