"""A correction log becomes records to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from medreasoner_trainer.data import open_data
from medreasoner_trainer.data.corrections import read_corrections
from napari_medreasoner.core.corrections import CORRECTIONS, Correction
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.masks import PackedMask, box_of_mask, key_points_of_mask
from tests.trainer.sets import ellipse

MASK = ellipse(64, 48, 30, 20, 12, 8)


def correction(id_: str, proposed: Box | None, image: str = "a.png") -> Correction:
    return Correction(
        id=id_,
        image=image,
        group="study-1",
        modality="CT",
        question="What is bright here?",
        trace="The bright part is on the left.",
        proposed=Prompts(box=proposed),
        final=Prompts(box=Box.from_corners(16, 10, 50, 31), points=(Point(x=30, y=20),)),
        mask=PackedMask.pack(MASK),
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "a.png")
    Image.fromarray(np.full((40, 64, 3), 90, np.uint8)).save(folder / "other.png")
    lines = [
        correction("moved", Box.from_corners(0, 0, 5, 5)),
        correction("kept", box_of_mask(MASK)),
        correction("moved", box_of_mask(MASK)),
        correction("wrong-size", None, "other.png"),
        correction("gone", None, "gone.png"),
        correction("nothing-proposed", None),
    ]
    text = "".join(line.model_dump_json() + "\n" for line in lines)
    (folder / CORRECTIONS).write_text(text + '{"version": 2}\n', encoding="utf-8")
    return folder


def test_the_last_word_on_a_finding_counts_and_its_truth_is_the_mask(log: Path) -> None:
    records = {record.id: record for record in read_corrections(log).records}
    assert list(records) == ["moved", "kept", "nothing-proposed"]
    for record in records.values():
        assert record.box == box_of_mask(MASK)
        assert record.points == key_points_of_mask(MASK)
        assert (record.split, record.group, record.modality) == ("train", "study-1", "CT")


def test_reasoning_that_led_elsewhere_is_not_learned(log: Path) -> None:
    traces = {record.id: bool(record.trace) for record in read_corrections(log).records}
    assert traces == {"moved": True, "kept": True, "nothing-proposed": False}


def test_lines_that_cannot_be_used_are_named(log: Path) -> None:
    problems = read_corrections(log).problems
    assert [problem.line for problem in problems] == [4, 5, 7]
    assert "the mask has 64 x 48 pixels, the picture 64 x 40" in problems[0].reason
    with pytest.raises(ReadError, match="Record 4 of"):
        read_corrections(log, strict=True)


def test_the_command_writes_a_data_set(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    result = CliRunner().invoke(app, ["from-corrections", str(log), str(out)])
    assert result.exit_code == 0, result.output
    written = open_data(out, "train", strict=True)
    assert len(written.records) == 3
    for record in written.records:
        assert np.array_equal(written.mask(record), MASK)
        assert written.image(record).shape == (48, 64, 3)
