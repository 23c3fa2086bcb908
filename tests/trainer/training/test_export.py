"""What is exported answers as what was trained, and the backend knows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from medreasoner_trainer.data import open_data
from medreasoner_trainer.training.export import export
from medreasoner_trainer.training.pictures import Scale
from napari_medreasoner.core.errors import ExportError, SettingsError, WeightsError
from napari_medreasoner.engines.models.folder import Manifest, faults_of
from tests.trainer.training.runs import SFT, train, weights


@pytest.fixture(scope="module")
def exported(supervised: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    made = export(supervised, out)
    assert made == (80, 0.0)
    return out


def test_weights_are_those_of_the_checkpoint(exported: Path, taught: Path) -> None:
    ours, theirs = weights(exported), weights(taught)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_folder_holds_what_a_backend_needs_and_nothing_of_training(exported: Path) -> None:
    manifest = Manifest.read(exported)
    assert manifest is not None
    assert manifest.coordinates == "resized pixels"
    names = {file.path for file in manifest.files}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth"))}
    assert not list(faults_of(exported))


def test_its_processor_shows_a_picture_as_training_did(exported: Path, data: Path) -> None:
    processor, opened = AutoProcessor.from_pretrained(exported), open_data(data)
    for record in opened.records:
        picture = Image.fromarray(opened.image(record))
        grid = processor.image_processor([picture], return_tensors="pt")["image_grid_thw"][0]
        height, width = (int(cells) * 14 for cells in grid[1:])
        assert (width, height) == Scale(record.image_size, 84).shown


def test_training_goes_on_from_what_was_exported(
    exported: Path, data: Path, tmp_path: Path
) -> None:
    """The exported processor resizes to one area, and pictures of training have it already."""
    assert train(exported, data, tmp_path / "run", *SFT, "optimiser.max_steps=1").step == 1


def test_adapters_are_merged(taught: Path, data: Path, tmp_path: Path) -> None:
    run, lora = tmp_path / "run", ("lora.rank=4", "lora.alpha=64", "optimiser.max_steps=2")
    train(taught, data, run, *SFT, *lora)
    made = export(run, tmp_path / "model", "last")
    assert made.step == 2
    assert made.difference < 1e-5
    before, after = weights(taught), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(".layers." in name and name.endswith("_proj.weight") for name in moved)


def test_what_cannot_be_exported_is_told(supervised: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has the steps: 60, 80"):
        export(supervised, tmp_path / "model", 3)
    with pytest.raises(ExportError, match="not empty"):
        export(supervised, exported)


def test_a_damaged_checkpoint_is_not_exported(supervised: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(supervised, run)
    (run / "checkpoint-80" / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"config\.json is damaged"):
        export(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()
