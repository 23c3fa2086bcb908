"""COCO files as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from medreasoner_trainer.data import open_data
from medreasoner_trainer.data.rle import mask_of_segmentation, runs_of_mask
from napari_medreasoner.core.errors import ReadError


def write_coco(folder: Path, *annotations: dict[str, Any]) -> Path:
    Image.new("L", (20, 10)).save(folder / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 3, "name": "liver", "supercategory": "abdomen anatomies"}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 3} | annotation
            for number, annotation in enumerate(annotations)
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_polygons_cover_the_pixels_whose_centres_they_hold() -> None:
    mask = mask_of_segmentation([[2, 1, 8, 1, 8, 5, 2, 5], [10, 6, 12, 6, 12, 8, 10, 8]], 20, 10)
    expected = np.zeros((10, 20), np.bool_)
    expected[1:5, 2:8] = expected[6:8, 10:12] = True
    assert np.array_equal(mask, expected)


def test_a_file_with_polygons_gives_tight_boxes_and_key_points(tmp_path: Path) -> None:
    square = [[2, 1, 9, 1, 9, 8, 2, 8]]
    path = write_coco(tmp_path, {"segmentation": square, "bbox": [1.5, 0.5, 9, 9]})
    (record,) = open_data(path, strict=True).records
    assert (record.category, record.supercategory) == ("liver", "abdomen anatomies")
    assert record.box.corners == (2, 1, 9, 8)
    assert (record.points[0].x, record.points[0].y) == (5, 4)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("061M", [0, 6, 1, 3]),
        ("061", [0, 6, 1]),
        ("061K", [0, 6, 1, 1]),
        ("0610", [0, 6, 1, 6]),
        ("011101010", [0, 1, 1, 2, 1, 3, 1, 4, 1]),
        ("0PP1", [0, 1024]),
    ],
)
def test_published_compressed_run_lengths(text: str, runs: list[int]) -> None:
    expected = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask = mask_of_segmentation({"counts": text}, 1, sum(runs))
    assert np.array_equal(mask[:, 0], expected)


def test_run_lengths_go_down_the_columns() -> None:
    mask = mask_of_segmentation({"size": [2, 3], "counts": [1, 3, 2]}, 3, 2)
    assert mask.tolist() == [[False, True, False], [True, True, False]]


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_lose_nothing(mask: NDArray[np.bool_]) -> None:
    height, width = mask.shape
    assert np.array_equal(mask_of_segmentation(runs_of_mask(mask), width, height), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        "x",
        [[1, 2, 3]],
        [[1, 2, 3, 4]],
        [["a", "b", "c", "d", "e", "f"]],
        [[0, 0, float("nan"), 2, 3, 3]],
        {"counts": [1, 2]},
        {"counts": [-1, 201]},
        {"counts": [100.5, 99.5]},
        {"counts": "~~~"},
        {"counts": "oooooooooooooooooooooo"},
        {},
    ],
)
def test_damaged_segmentations(segmentation: Any) -> None:
    with pytest.raises(ReadError):
        mask_of_segmentation(segmentation, 20, 10)


def test_bad_annotations_are_left_out(tmp_path: Path) -> None:
    good = {"segmentation": [[2, 1, 9, 1, 9, 8, 2, 8]]}
    path = write_coco(tmp_path, {}, good | {"image_id": 1}, {"segmentation": [[9] * 6]}, good)
    data = open_data(path)
    assert [problem.line for problem in data.problems] == [1, 2, 3]
    assert "empty" in data.problems[2].reason
    assert [record.id for record in data.records] == ["3"]


@pytest.mark.parametrize("content", ["no", "[]", '{"images": []}'])
def test_files_that_are_not_coco(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ReadError, match=r"COCO|JSON"):
        open_data(tmp_path / "a.json")
