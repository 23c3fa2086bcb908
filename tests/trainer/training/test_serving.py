"""An exported model answers in the backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from medreasoner_trainer.training.loading import recipe_folder

pytest.importorskip(
    "napari_medreasoner.engines.reasoners.transformers_vlm",
    reason="the engine that runs vision-language models is not there",
)


def test_it_loads_by_its_path_and_its_answer_is_read(supervised: Path, tmp_path: Path) -> None:
    model, runner = tmp_path / "model", CliRunner()
    made = runner.invoke(app, ["export", str(supervised), str(model)])
    assert made.exit_code == 0, made.output
    assert "logits differ by 0.0e+00" in made.output
    prompt = recipe_folder() / "short.toml"
    asked = ["serve-check", str(model), "--device", "cpu", "--prompt", str(prompt)]
    result = runner.invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "<think>It is here.</think>" in result.output
    assert "Box: [" in result.output
