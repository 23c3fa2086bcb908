"""What `data check` finds, and the splits it would find leaks in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from medreasoner_trainer.data import Record, open_data
from medreasoner_trainer.data.check import check_data
from medreasoner_trainer.data.split import hold_out, hold_out_groups, out_of_distribution
from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.core.geometry import Box, Point
from tests.trainer.sets import mini, write_lines, write_set


def kinds(folder: Path) -> Counter[str]:
    return Counter(finding.kind for finding in check_data(open_data(folder)))


def test_a_clean_set_with_two_records_of_one_image(tmp_path: Path) -> None:
    lines = write_set(tmp_path, 3)
    lines.append(lines[0] | {"id": "again", "question": "Where is bile made?"})
    write_lines(tmp_path, lines)
    assert not kinds(tmp_path)
    lines.append(lines[0] | {"id": "and again"})
    write_lines(tmp_path, lines)
    assert kinds(tmp_path) == {"same target and question twice": 1}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"bbox": [3, 18, 40, 33]}, "loose box"),
        ({"bbox": [10, 20, 20, 30]}, "box does not enclose the mask"),
        ({"points": [[21, 25], [1, 1]]}, "point outside the mask"),
        ({"id": "r0"}, "unusable record"),
        ({"id": "r0", "split": "test"}, "duplicate id"),
        ({"group": "g0", "split": "test"}, "group in several splits"),
        ({"image": "images/0.png"}, "unreadable image"),
        ({"mask": "masks/0.png"}, "unreadable mask"),
        ({"mask": "masks/none.png"}, "unusable record"),
    ],
)
def test_one_finding(tmp_path: Path, change: dict[str, Any], kind: str) -> None:
    lines = write_set(tmp_path, 2)
    if kind == "unreadable image":
        Image.new("L", (9, 9)).save(tmp_path / "images/1.png")
        change = {}
    lines[1] |= change
    write_lines(tmp_path, lines)
    assert kinds(tmp_path) == {kind: 1}


def test_an_empty_mask(tmp_path: Path) -> None:
    write_set(tmp_path, 1)
    Image.new("1", (60, 48)).save(tmp_path / "masks/0.png")
    assert kinds(tmp_path) == {"empty mask": 1}


def test_the_same_picture_saved_anew_in_another_split(tmp_path: Path) -> None:
    lines = write_set(tmp_path, 2)
    lines[1]["split"] = "test"
    with Image.open(tmp_path / "images/0.png") as picture:
        brighter = picture.point(lambda level: min(255, int(level * 1.1)))
    brighter.resize((61, 48)).save(tmp_path / "images/1.jpg", quality=85)
    lines[1]["image"] = "images/1.jpg"
    write_lines(tmp_path, lines)
    (finding,) = check_data(open_data(tmp_path))
    assert finding.kind == "same image in several splits"
    assert "images/0.png" in finding.where
    assert "images/1.jpg" in finding.where


def test_the_command_reports_and_exits_1_on_findings(tmp_path: Path) -> None:
    lines = write_set(tmp_path, 2)
    clean = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert clean.exit_code == 0
    assert "No findings." in clean.output
    write_lines(tmp_path, [lines[0], lines[1] | {"id": "r0", "split": "test"}])
    found = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--json"])
    assert found.exit_code == 1
    report = json.loads(found.output)
    assert report["records"] == report["images"] == 2
    assert report["counts"]["category"] == {"liver": {"test": 1, "train": 1}}
    assert report["findings"] == [{"kind": "duplicate id", "where": "r0", "detail": "2 records"}]
    assert "duplicate id: 1" in CliRunner().invoke(app, ["data", "check", str(tmp_path)]).output


def made(count: int, kinds: int = 7) -> list[Record]:
    """Records of `kinds` categories, the first ones more frequent; two to a group."""
    share = np.linspace(2, 1, kinds)
    labels = np.random.default_rng(0).choice(kinds, count, p=share / share.sum())
    return [
        Record(
            id=f"r{number}",
            image=f"{number // 2}.png",
            mask=f"{number}m.png",
            image_size=(9, 9),
            box=Box.from_corners(0, 0, 5, 5),
            points=(Point(x=1, y=1), Point(x=2, y=2)),
            category=f"c{label}",
            group=f"g{number // 2}",
        )
        for number, label in enumerate(labels)
    ]


def sides(records: list[Record]) -> dict[str, str]:
    return {record.id: record.split for record in records}


@pytest.mark.parametrize(("test", "count"), [(25.0, 25), (0.1, 20)])
def test_random_hold_out(test: float, count: int) -> None:
    records = made(200)
    found = hold_out(records, test, seed=3)
    assert Counter(record.split for record in found) == {"test": count, "train": 200 - count}
    assert sides(hold_out(records[::-1], test, seed=3)) == sides(found)
    assert sides(hold_out(records, test, seed=4)) != sides(found)


def test_groups_stay_together() -> None:
    found = hold_out_groups(made(200), 31, seed=0)
    by_group: dict[str, set[str]] = {}
    for record in found:
        by_group.setdefault(record.group, set()).add(record.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert sum(record.split == "test" for record in found) == 32
    assert sides(hold_out_groups(made(200)[::-1], 31, seed=0)) == sides(found)


def test_out_of_distribution() -> None:
    records = made(400)
    found = out_of_distribution(records, 0.5, seed=0, by="category")
    frequent = {kind for kind, _ in Counter(record.category for record in records).most_common(5)}
    train = [record for record in found if record.split == "train"]
    test = [record for record in found if record.split == "test"]
    assert {record.category for record in train} == frequent
    assert {record.category for record in test}.isdisjoint(frequent)
    assert {record.group for record in train}.isdisjoint({record.group for record in test})
    assert len(train) + len(test) < 400
    unused = {record.group for record in found if not record.split}
    assert unused <= {record.group for record in train + test}


def test_splits_that_cannot_be() -> None:
    with pytest.raises(SettingsError, match="200 of 200"):
        hold_out(made(200), 200, seed=0)
    with pytest.raises(SettingsError, match="4 kinds of target by category"):
        out_of_distribution(made(50, kinds=4), 0.5, seed=0, by="category")


def test_the_split_command_writes_a_set_without_leaks(tmp_path: Path) -> None:
    write_set(tmp_path / "in", 6)
    arguments = ["--how", "group", "--test", "2", "--seed", "5"]
    for out in ("a", "b"):
        result = CliRunner().invoke(
            app, ["data", "split", str(tmp_path / "in"), str(tmp_path / out), *arguments]
        )
        assert "4 train, 2 test, 0 in no split." in result.output
    assert open_data(tmp_path / "a").records == open_data(tmp_path / "b").records
    assert len(open_data(tmp_path / "a", "test").records) == 2
    assert not kinds(tmp_path / "a")


@pytest.mark.parametrize("form", ["jsonl", "parquet", "coco"])
def test_the_convert_command(tmp_path: Path, form: str) -> None:
    write_set(tmp_path / "in", 2)
    arguments = ["data", "convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", form]
    result = CliRunner().invoke(app, arguments)
    assert "2 records, 0 left out" in result.output
    assert not kinds(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    space = CliRunner().invoke(app, [*arguments, "--space", "norm1"])
    if form == "jsonl":
        line = json.loads((tmp_path / "out/records.jsonl").read_text().splitlines()[0])
        assert max(line["bbox"]) <= 1
        assert not kinds(tmp_path / "out")
    else:
        assert isinstance(space.exception, SettingsError)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from medreasoner_trainer.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "heavy = {'pyarrow', 'datasets', 'scipy', 'skimage', 'PIL', 'ray'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_a_fifth_of_umrg_mini_is_clean() -> None:
    data = open_data(mini())
    assert check_data(data.with_records(data.records[::5])) == []
