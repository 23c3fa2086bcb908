"""One coordinate transform, one preprocessing, the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from medreasoner_trainer.training.pictures import Scale, resized
from medreasoner_trainer.training.preprocessing import Preprocessed, keep_preprocessed
from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.metrics import box_iou


def test_the_papers_squares_are_shown_as_they_are() -> None:
    scale = Scale((840, 840), 840)
    assert (scale.shown, scale.tokens) == ((840, 840), 900)
    assert scale.corners(Box.from_corners(1, 2, 300, 400)) == (1, 2, 300, 400)


@given(st.integers(30, 2000), st.integers(30, 2000), st.data())
def test_the_way_there_and_back_ends_where_it_began(
    width: int, height: int, data: st.DataObject
) -> None:
    scale = Scale((width, height), 840)
    assert all(side % 28 == 0 for side in scale.shown)
    x1, y1 = data.draw(st.integers(0, width - 9)), data.draw(st.integers(0, height - 9))
    box = Box.from_corners(x1, y1, x1 + 9, y1 + 9)
    shown = scale.shown_box(box)
    assert 0 <= shown.x1 < shown.x2 <= scale.shown[0]
    back = np.array(scale.stored_corners(shown)) - box.corners
    finest = max(width / scale.shown[0], height / scale.shown[1])
    assert np.abs(back).max() <= 0.5 * finest + 0.5
    points = (Point(x=x1, y=y1), Point(x=x1 + 5, y=y1 + 6))
    back_points = np.array(scale.stored_points(scale.shown_points(points)))
    assert np.abs(back_points - [[p.x, p.y] for p in points]).max() <= finest + 0.5


def test_a_perfect_answer_stays_nearly_perfect_after_rounding() -> None:
    scale = Scale((512, 512), 840)
    box = Box.from_corners(100, 120, 160, 200)
    assert box_iou(Box.from_corners(*scale.stored_corners(scale.shown_box(box))), box) > 0.99


def test_a_picture_that_is_a_line_is_refused() -> None:
    with pytest.raises(ImageError, match="too elongated"):
        Scale((4000, 10), 840)


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shapes = ((60, 90, 3), (200, 100, 3), (70, 70, 3))
    arrays = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in shapes]
    return [resized(array, Scale(array.shape[1::-1], 84)) for array in arrays]


def test_the_processor_leaves_shown_pictures_alone_and_kept_ones_are_the_same(
    tiny: Path, pictures: list[Image.Image]
) -> None:
    bare = AutoProcessor.from_pretrained(tiny).image_processor
    processor = AutoProcessor.from_pretrained(tiny)
    kept = keep_preprocessed(processor.image_processor)
    wanted = bare(pictures * 2, return_tensors="pt")
    for _ in range(2):
        made = processor.image_processor([[picture] for picture in pictures * 2])
        assert torch.equal(made["pixel_values"], wanted["pixel_values"])
        assert torch.equal(made["image_grid_thw"], wanted["image_grid_thw"])
    assert (kept.made, kept.found) == (3, 9)
    shown = [tuple(int(n) * 14 for n in grid[1:].flip(0)) for grid in wanted["image_grid_thw"][:3]]
    assert shown == [picture.size for picture in pictures]


def test_other_pixels_or_settings_are_preprocessed_anew(
    tiny: Path, pictures: list[Image.Image]
) -> None:
    processor = AutoProcessor.from_pretrained(tiny)
    kept = keep_preprocessed(processor.image_processor)
    first = processor.image_processor([pictures[0]])
    other = pictures[0].copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert not torch.equal(
        processor.image_processor([other])["pixel_values"], first["pixel_values"]
    )
    processor.image_processor([pictures[0]], do_normalize=False)
    assert (kept.made, kept.found) == (3, 0)


def test_what_is_kept_has_a_limit() -> None:
    kept, made = Preprocessed(limit=100), []

    def make(picture: Image.Image) -> dict[str, torch.Tensor]:
        made.append(picture)
        return {"pixel_values": torch.zeros(15), "image_grid_thw": torch.ones(1, 3)}

    first, second = Image.new("RGB", (2, 2)), Image.new("RGB", (3, 3))
    for picture in (first, first, second, first):
        kept.batch([picture], {}, make)  # type: ignore[arg-type]
    assert [picture.size for picture in made] == [(2, 2), (3, 3), (2, 2)]


def test_it_is_saved_as_what_it_was(tiny: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny)
    keep_preprocessed(processor.image_processor)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "processor_config.json").read_bytes() == (
        tiny / "processor_config.json"
    ).read_bytes()
