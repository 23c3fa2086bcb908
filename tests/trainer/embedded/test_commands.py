"""`medreasoner-train embedded …` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from tests.trainer.training.runs import lines_of

RUNS = {
    "segmenter": ("0.0005", {".": 2}),
    "reasoner": (
        "0.0001",
        {"vision": 1, "reading": 1, "supervised-1": 1, "supervised-2": 1},
    ),
}


@pytest.mark.parametrize("command", RUNS)
def test_a_share_of_the_recipe_on_one_tier(command: str, data: Path, tmp_path: Path) -> None:
    share, steps = RUNS[command]
    typed = ["embedded", command, "--data", str(data), "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*typed, "--tiers", "open", "--share", share])
    assert result.exit_code == 0, result.output
    for folder, last in steps.items():
        assert lines_of(tmp_path / folder / "log.jsonl")[-1]["step"] == last, folder


@pytest.mark.parametrize(
    "wrong", [("--share", "0"), ("--share", "1.5"), ("--tiers", "open,closed")]
)
def test_no_such_share_or_tier(wrong: tuple[str, str], data: Path, tmp_path: Path) -> None:
    typed = ["embedded", "segmenter", "--data", str(data), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*typed, *wrong])
    assert result.exit_code != 0
    assert not (tmp_path / "run").exists()
