"""What is refused before a run starts, and what a dry run says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from medreasoner_trainer.training.loading import load_config
from medreasoner_trainer.training.run import Run
from napari_medreasoner.core.errors import (
    InputError,
    QuestionError,
    ReadError,
    SettingsError,
    WeightsError,
)
from tests.trainer.training.runs import SMALL, WRITING, prepared, train


def options(*settings: str) -> list[str]:
    return [part for each in settings for part in ("--set", each)]


def test_a_dry_run_shows_the_arithmetic_and_the_first_rewards(
    taught: Path, data: Path, tmp_path: Path
) -> None:
    settings = (f"model.path={taught}", f"data.path={data}", *SMALL, *WRITING)
    command = ["grpo", "--config", "tiny-cpu", "--out", str(tmp_path / "run"), "--dry-run"]
    result = CliRunner().invoke(app, [*command, *options(*settings)])
    assert result.exit_code == 0, result.output
    for line in (
        "9 training records, 2 of validation, 0 unusable",
        "rollout: 2 prompts x 4 completions = 8 sequences, 2 passes on each device",
        "memory in GiB, estimated: weights",
        "rewards of 8 completions before any training:",
        "  bbox_iou",
    ):
        assert line in result.output
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_the_other_method_is_refused(tmp_path: Path) -> None:
    command = ["sft", "--config", "tiny-cpu", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, SettingsError)
    assert "run: medreasoner-train grpo" in str(result.exception)


def refused(error: type[InputError], told: str, model: Path, data: Path, *overrides: str) -> None:
    with pytest.raises(error) as raised:
        prepared(model, data, Path("unused"), *overrides)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_each_fault_is_one_sentence_with_a_fix(tiny: Path, data: Path, tmp_path: Path) -> None:
    refused(ReadError, "holds no data set", tiny, tmp_path)
    refused(ReadError, 'in the split "train2"', tiny, data, "data.train=train2")
    refused(SettingsError, "no CUDA device", tiny, data, "model.device=cuda")
    refused(SettingsError, "needs vLLM, which is not installed", tiny, data, "rollout.vllm={}")
    refused(QuestionError, "raise rollout.max_prompt", tiny, data, "rollout.max_prompt=20")
    refused(SettingsError, "resize once more", tiny, data, "data.side=1400")
    refused(WeightsError, "no readable config.json", data, data)
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    refused(WeightsError, 'of the family "llava"; training knows: qwen2_5_vl', other, data)


def test_an_unreadable_picture_is_named(tiny: Path, data: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "data"
    shutil.copytree(data, damaged)
    for picture in damaged.glob("*-1.png"):
        picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(ReadError, match=r"-1\.png cannot be read as a PNG"):
        train(tiny, damaged, tmp_path / "run", "optimiser.max_steps=9")


def test_without_a_validation_split_whole_groups_are_held_out(tiny: Path, data: Path) -> None:
    run = prepared(
        tiny, data, Path("unused"), "data.validation=null", "batch.prompts=1", "batch.generations=4"
    )
    train_groups = {record.group for record in run.sides.train.records}
    held_out = {record.group for record in run.sides.validation.records}
    assert held_out
    assert not held_out & train_groups
    assert "val" not in {record.id.rpartition("-")[2] for record in run.sides.train.records}


def test_the_prompt_is_worded_as_in_serving_and_the_truth_is_what_is_shown(
    tiny: Path, data: Path
) -> None:
    run: Run = prepared(tiny, data, Path("unused"))
    examples = run.sides.train
    for index, record in enumerate(examples.records):
        width, height = examples.picture(index).size
        assert f"{width} x {height}" in examples.messages(index)[0]["content"]
        truth = examples.truth(index).checked()
        assert truth.image_size == (width, height)
        assert truth.box[0] / width == pytest.approx(record.box.x1 / record.image_size[0])


def test_a_recipe_by_name_takes_the_prompt_beside_it() -> None:
    assert load_config("tiny-cpu").data.template.name == "Short"
