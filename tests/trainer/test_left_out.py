"""Whatever is done with a data set, a bad record is told by file and line and the rest goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medreasoner_trainer import cli
from medreasoner_trainer.data import open_data
from tests.trainer.sets import write_lines, write_set

COMMANDS = [
    ["convert", "--to", "jsonl"],
    ["convert", "--to", "parquet"],
    ["convert", "--to", "coco"],
    ["convert", "--to", "pairs"],
    ["split", "--how", "group", "--test", "1"],
    ["ask"],
]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Seven lines, of which the first and the last are good."""
    folder = tmp_path / "in"
    lines: list[Any] = write_set(folder, 5)
    (folder / "masks/1.png").write_bytes(b"")
    Image.new("1", (5, 5), 1).save(folder / "masks/2.png")
    (folder / "images/3.png").write_bytes(b"PNG")
    write_lines(folder, [*lines[:4], '{"id": ', lines[0], lines[4]])
    return folder


def run(monkeypatch: pytest.MonkeyPatch, command: list[str], *options: str) -> int:
    name, *rest = command
    monkeypatch.setattr(sys, "argv", ["medreasoner-train", "data", name, *options, *rest])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: Path,
    tmp_path: Path,
    command: list[str],
) -> None:
    assert run(monkeypatch, command, str(broken), str(tmp_path / "out")) == 0
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        f"records.jsonl, line {number}" for number in (5, 6, 2, 3, 4)
    ]
    assert "masks/1.png cannot be read" in lines[2]
    assert "masks/2.png has 5 x 5 pixels" in lines[3]
    assert "images/3.png cannot be read" in lines[4]
    assert "2 records, 5 left out as unusable" in told.out
    written = open_data(tmp_path / "out", strict=True)
    assert sorted(record.id for record in written.records) == ["r0", "r4"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_strict_stops_at_the_first(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: Path,
    tmp_path: Path,
    command: list[str],
) -> None:
    assert run(monkeypatch, command, str(broken), str(tmp_path / "out"), "--strict") == 2
    assert capsys.readouterr().err.startswith("Record 5 of records.jsonl cannot be used (")
    lines = (broken / "records.jsonl").read_text(encoding="utf-8").splitlines()
    (broken / "records.jsonl").write_text("\n".join(lines[:4]), encoding="utf-8")
    assert run(monkeypatch, command, str(broken), str(tmp_path / "new"), "--strict") == 2
    assert capsys.readouterr().err.startswith("Record 2 of records.jsonl cannot be used (")


def test_a_set_becomes_pairs_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = write_set(tmp_path / "in", 3)
    lines[1]["image"] = lines[0]["image"]
    lines[1] |= {"mask": lines[0]["mask"], "bbox": lines[0]["bbox"], "points": lines[0]["points"]}
    lines[1] |= {"width": lines[0]["width"], "id": "r 0/b"}
    lines[2]["id"] = "r_0_b"
    write_lines(tmp_path / "in", lines)
    out = tmp_path / "out"
    assert run(monkeypatch, ["convert", "--to", "pairs"], str(tmp_path / "in"), str(out)) == 0
    before, after = open_data(tmp_path / "in"), open_data(out, strict=True)
    back = dict(zip(("r0", "r_0_b", "r_0_b_2"), before.records, strict=True))
    assert [record.id for record in after.records] == list(back)
    for record in after.records:
        old = back[record.id]
        assert (record.box, record.points) == (old.box, old.points)
        assert np.array_equal(after.mask(record), before.mask(old))
        assert after.image_file(record) == before.image_file(old)
