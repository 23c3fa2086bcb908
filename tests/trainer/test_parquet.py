"""U-MRG's Parquet form: what is written, `datasets` reads; what was released, we read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medreasoner_trainer.data import DataSet, open_data
from medreasoner_trainer.data.coco import save_coco
from medreasoner_trainer.data.jsonl import save_jsonl
from medreasoner_trainer.data.parquet import save_parquet
from napari_medreasoner.core.errors import ExportError, ReadError
from tests.trainer.sets import write_lines, write_set


def source(tmp_path: Path) -> DataSet:
    """Three images, two records on one of them, two splits and one record in none."""
    lines = write_set(tmp_path / "in", 3, question="Where is bile made?", trace="On the left.")
    lines[1] |= {"split": "test", "healthy": None}
    lines[2] |= {"split": "", "category": "spleen"}
    lines.append(lines[0] | {"id": "again", "question": ""})
    write_lines(tmp_path / "in", lines)
    return open_data(tmp_path / "in", strict=True)


def assert_same(one: DataSet, other: DataSet) -> None:
    assert len(one.records) == len(other.records)
    found = {record.id: record for record in other.records}
    for record in one.records:
        twin = found[record.id]
        assert twin.model_copy(update={"image": record.image, "mask": record.mask}) == record
        assert one.image_file(record) == other.image_file(twin)
        assert np.array_equal(one.mask(record), other.mask(twin))


@pytest.mark.parametrize("save", [save_jsonl, save_parquet, save_coco])
def test_there_and_back_again(tmp_path: Path, save: Any) -> None:
    data = source(tmp_path)
    save(data, tmp_path / "out")
    written = open_data(tmp_path / "out", strict=True)
    assert_same(data, written)
    save_jsonl(written, tmp_path / "back", "norm1000")
    assert_same(data, open_data(tmp_path / "back", strict=True))
    assert len(list((tmp_path / "back/images").iterdir())) == 3
    with pytest.raises(ExportError, match="not empty"):
        save(data, tmp_path / "out")


def test_the_datasets_library_reads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the train extra is not installed")
    data = source(tmp_path)
    save_parquet(data, tmp_path / "out")
    table = datasets.Dataset.from_parquet(
        str(tmp_path / "out/test.parquet"), cache_dir=str(tmp_path / "cache")
    )
    row, record = table[0], data.records[1]
    assert row["data_source"] == "umrg"
    assert row["prompt"][0]["content"] == record.question
    truth = json.loads(row["reward_model"]["ground_truth"])
    assert truth["bbox_2d"] == list(record.box.corners)
    assert truth["point_2d"] == [[point.x, point.y] for point in record.points]
    assert row["extra_info"]["id"] == record.id
    assert np.array_equal(np.asarray(row["images"][0].convert("RGB")), data.image(record))
    assert np.array_equal(np.asarray(row["masks"][0]) / 255, data.mask(record))


def released(folder: Path, rows: int, **changes: Any) -> Path:
    """Write a table with the released columns and no more."""
    write_set(folder, rows)
    table = []
    for record in open_data(folder).records:
        truth = {
            "bbox_2d": list(record.box.corners),
            "point_2d": [[point.x, point.y] for point in record.points],
        }
        picture = (folder / record.image).read_bytes()
        row = {
            "data_source": "umrg",
            "prompt": [{"content": "Where?", "role": "user"}],
            "images": [{"bytes": picture, "path": None}],
            "masks": [{"bytes": (folder / record.mask).read_bytes(), "path": None}],
            "reward_model": {"ground_truth": json.dumps(truth)},
            "extra_info": {"id": record.id, "supercategory": "lung", "category": "left lung"},
        }
        table.append(row)
    table[0] |= changes
    path = folder / "test-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(table), path, row_group_size=2)
    (folder / "records.jsonl").unlink()
    return path


def test_released_columns_and_the_side_file(tmp_path: Path) -> None:
    path = released(tmp_path, 5)
    side = [{"id": "r3", "modal": "X-ray", "health": "Yes", "think": "Looking.", "bbox": [1, 2]}]
    (tmp_path / "umrg_rl.json").write_text(json.dumps(side))
    data = open_data(path, "test", strict=True)
    assert [record.image_size for record in data.records] == [(60 + i, 48) for i in range(5)]
    record = data.records[3]
    assert (record.modality, record.healthy, record.trace) == ("X-ray", True, "Looking.")
    assert data.records[2].healthy is None
    with Image.open(tmp_path / "images/3.png") as picture:
        assert np.array_equal(data.image(record), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {
                "reward_model": {
                    "ground_truth": '{"bbox_2d": [1, NaN, 3, 4], "point_2d": [[1, 2], [3, 4]]}'
                }
            },
            "bbox",
        ),
        ({"reward_model": {"ground_truth": "no"}}, "JSON"),
        ({"prompt": []}, "malformed"),
        ({"images": []}, "holds no picture"),
        ({"extra_info": {"id": None, "supercategory": None, "category": None}}, "id"),
    ],
)
def test_bad_rows(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = released(tmp_path, 3, **change)
    data = open_data(path)
    assert [(problem.file, problem.line) for problem in data.problems] == [(path.name, 1)]
    assert reason in data.problems[0].reason
    assert len(data.records) == 2


def test_files_that_are_no_such_table(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ReadError, match="not a Parquet file"):
        open_data(tmp_path)
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ReadError, match='no column "reward_model"'):
        open_data(tmp_path)
