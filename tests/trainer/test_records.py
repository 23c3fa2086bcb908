"""Reading records: coordinates, bad lines, files outside the folder, wrong sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medreasoner_trainer.data import Record, open_data
from medreasoner_trainer.data.fields import Fields, fields_of, record_from
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.geometry import Box, Point
from tests.trainer.sets import mini, write_lines, write_set

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@st.composite
def records(draw: st.DrawFn) -> Record:
    width, height = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    corners = x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    x, y = st.integers(0, width - 1), st.integers(0, height - 1)
    return Record(
        id=draw(TEXT.filter(bool)),
        image="images/a.png",
        mask="masks/a.png",
        image_size=(width, height),
        box=Box.from_corners(*corners),
        points=(Point(x=draw(x), y=draw(y)), Point(x=draw(x), y=draw(y))),
        question=draw(TEXT),
        trace=draw(TEXT),
        healthy=draw(st.none() | st.booleans()),
        tier=draw(st.sampled_from(["open", "noncommercial", "unstated"])),
        split=draw(st.sampled_from(["", "train", "val", "my_split-2"])),
    )


def no_image() -> tuple[int, int]:
    raise AssertionError("the fields give the size")


@given(records(), st.sampled_from(["pixel", "norm1000", "norm1"]))
def test_writing_and_reading_loses_nothing(record: Record, space: Any) -> None:
    text = json.dumps(fields_of(record, space))
    assert record_from(Fields.model_validate_json(text), no_image) == record


@pytest.mark.parametrize(
    ("space", "drawn_on", "bbox", "points"),
    [
        ("pixel", None, [20, 10, 60, 40], [[30, 20], [50, 30]]),
        ("pixel", [200, 100], [40, 20, 120, 80], [[60, 40], [100, 60]]),
        ("norm1000", None, [200, 200, 600, 800], [[300, 400], [500, 600]]),
        ("norm1", None, [0.2, 0.2, 0.6, 0.8], [[0.3, 0.4], [0.5, 0.6]]),
    ],
)
def test_coordinates_become_pixels_of_the_stored_image(
    space: Any, drawn_on: Any, bbox: Any, points: Any
) -> None:
    fields = Fields(
        id="a",
        image="i",
        mask="m",
        coord_space=space,
        image_size=drawn_on,
        bbox=bbox,
        points=points,
    )
    record = record_from(fields, lambda: (100, 50))
    assert record.box.corners == (20, 10, 60, 40)
    assert [(point.x, point.y) for point in record.points] == [(30, 20), (50, 30)]


def test_reads_a_folder(tmp_path: Path) -> None:
    lines = write_set(tmp_path, 3)
    data = open_data(tmp_path)
    assert not data.problems
    assert [record.id for record in data.records] == ["r0", "r1", "r2"]
    record = data.records[2]
    assert list(record.box.corners) == lines[2]["bbox"]
    assert record.tier == "open"
    with Image.open(tmp_path / "images/2.png") as picture:
        assert np.array_equal(data.image(record), np.asarray(picture.convert("RGB")))
    rows, columns = np.nonzero(data.mask(record))
    assert (columns.min(), rows.min()) == (record.box.x1, record.box.y1)


def test_the_size_comes_from_the_image_where_the_line_has_none(tmp_path: Path) -> None:
    lines = write_set(tmp_path, 1)
    write_lines(tmp_path, [{key: lines[0][key] for key in lines[0] if key != "width"}])
    assert open_data(tmp_path).records[0].image_size == (60, 48)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [5, 5, 5, 9]}, "empty or leaves"),
        ({"bbox": [5, 5, 500, 9]}, "empty or leaves"),
        ({"bbox": [True, 5, 20, 9]}, "bbox.0"),
        ({"points": [[5, 5], [61, 9]]}, "leaves the image"),
        ({"points": [[5, 5]]}, "points"),
        ({"image": "images/none.png"}, "does not exist"),
        ({"image": "../secret.png"}, "outside the data folder"),
        ({"mask": "/etc/hostname"}, "outside the data folder"),
        ({"mask": "a\0b"}, "cannot be the name"),
        ({"licence_tier": "free"}, "tier"),
        ({"split": "a/b"}, "split"),
    ],
)
def test_a_bad_record_is_left_out(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    folder = tmp_path / "set"
    lines: list[Any] = write_set(folder, 3)
    Image.new("L", (60, 48)).save(tmp_path / "secret.png")
    lines[1] |= change
    write_lines(folder, lines)
    data = open_data(folder)
    assert [record.id for record in data.records] == ["r0", "r2"]
    assert [(problem.file, problem.line) for problem in data.problems] == [("records.jsonl", 2)]
    assert reason in data.problems[0].reason
    with pytest.raises(ReadError, match=r"Record 2 of records.jsonl cannot be used"):
        open_data(folder, strict=True)


def test_lines_that_are_not_records(tmp_path: Path) -> None:
    lines: list[Any] = write_set(tmp_path, 1)
    write_lines(tmp_path, ["", "[]", '{"bbox": NaN}', "\ufeff", "[" * 5000, *lines])
    data = open_data(tmp_path)
    assert [problem.line for problem in data.problems] == [2, 3, 4, 5]
    assert len(data.records) == 1


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_set(folder, 1)
    Image.new("L", (60, 48)).save(tmp_path / "secret.png")
    (folder / "images/0.png").unlink()
    (folder / "images/0.png").symlink_to(tmp_path / "secret.png")
    assert "outside" in open_data(folder).problems[0].reason


def test_damage_shows_when_the_pixels_are_asked_for(tmp_path: Path) -> None:
    write_set(tmp_path, 3)
    Image.new("L", (9, 9)).save(tmp_path / "images/0.png")
    (tmp_path / "images/1.png").write_bytes((tmp_path / "images/1.png").read_bytes()[:300])
    Image.fromarray(np.zeros((48, 62), np.uint16)).save(tmp_path / "images/2.png")
    data = open_data(tmp_path)
    with pytest.raises(ReadError, match=r'images/0.png has 9 x 9 pixels, but the record "r0"'):
        data.image(data.records[0])
    with pytest.raises(ReadError, match=r"images/1.png cannot be read"):
        data.image(data.records[1])
    with pytest.raises(ReadError, match=r"images/2.png has more than 8 bits"):
        data.image(data.records[2])


def test_other_formats_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, 1)
    Image.new("L", (60, 48)).save(tmp_path / "images/0.png", format="GIF")
    data = open_data(tmp_path)
    with pytest.raises(ReadError, match="PNG, JPEG or TIFF"):
        data.image(data.records[0])


def test_one_split(tmp_path: Path) -> None:
    lines = write_set(tmp_path, 3)
    lines[1]["split"] = "test"
    write_lines(tmp_path, lines)
    assert [record.id for record in open_data(tmp_path, "test").records] == ["r1"]
    with pytest.raises(ReadError, match='no record of the split "val"'):
        open_data(tmp_path, "val")


def test_mask_folders(tmp_path: Path) -> None:
    lines = write_set(tmp_path, 3)
    (tmp_path / "records.jsonl").unlink()
    (tmp_path / "masks/1.png").unlink()
    Image.new("1", (62, 48)).save(tmp_path / "masks/2.png")
    data = open_data(tmp_path)
    assert [list(record.box.corners) for record in data.records] == [lines[0]["bbox"]]
    assert [[point.x, point.y] for point in data.records[0].points] == lines[0]["points"]
    assert ["no mask" in problem.reason for problem in data.problems] == [True, False]


def test_a_lossy_mask_is_cut_at_half(tmp_path: Path) -> None:
    write_set(tmp_path, 1)
    mask = np.zeros((48, 60), np.uint8)
    mask[10:30, 10:30] = 255
    (tmp_path / "masks/0.png").unlink()
    Image.fromarray(mask).save(tmp_path / "masks/0.jpg", quality=40)
    (tmp_path / "records.jsonl").unlink()
    assert open_data(tmp_path).records[0].box.corners == (10, 10, 30, 30)


def test_umrg_mini_is_read_whole() -> None:
    data = open_data(mini(), strict=True)
    assert len(data.records) == 2257
    assert len({record.category for record in data.records}) == 41
