"""Deriving priors from a data set, on a small synthetic one and on the shipped file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medreasoner_trainer import cli, fit
from medreasoner_trainer.data import open_data
from medreasoner_trainer.priors import derive_priors
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from napari_medreasoner.engines.embedded.evidence import box_of, thumbnail
from napari_medreasoner.engines.embedded.priors import Priors, load_priors


def write_data(folder: Path, images: int) -> None:
    """Dark discs on a bright ground, always in the upper left quarter."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:80, :80]
    lines = []
    for number in range(images):
        x, y = (int(value) for value in rng.integers(18, 30, 2))
        mask = np.hypot(columns - x, rows - y) <= 12
        grey = np.where(mask, 60, 200) + rng.integers(-10, 10, mask.shape)
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}-mask.png")
        first, second = key_points_of_mask(mask)
        record = {
            "id": f"{number}",
            "image": f"{number}.png",
            "mask": f"{number}-mask.png",
            "modality": "Dermoscopy",
            "category": "skin lesion",
            "bbox": list(box_of_mask(mask).corners),
            "points": [[first.x, first.y], [second.x, second.y]],
            "group": f"g{number}",
            "split": "train" if number else "test",
        }
        lines.append(json.dumps(record))
    (folder / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_derives_numbers_from_the_training_split(tmp_path: Path) -> None:
    write_data(tmp_path, 13)
    priors = derive_priors(tmp_path)
    assert priors.provenance.records == priors.provenance.images == 12
    assert priors.provenance.split == "train"
    prior = priors.structures["skin lesion"]["Dermoscopy"]
    assert prior.images == 12
    image = thumbnail(np.asarray(Image.open(tmp_path / "0.png").convert("RGB")))
    x1, y1, x2, y2 = box_of(prior.placement(image.layout[None])[0])
    assert 0 <= x1 < 0.5 > y1 >= 0
    assert 0.3 < x2 < 0.6 > y2 > 0.3
    assert Priors.model_validate_json(priors.model_dump_json()) == priors


def test_a_fitted_model_separates() -> None:
    features = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    labels = features[:, 1] > 0
    model = fit.fit_logistic(features, labels, penalty=1.0)
    assert np.mean((model(features)[:, 0] > 0) == labels) > 0.95


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no data set"),
        ("{}", "Record 1 of records.jsonl"),
        ("", "no record of the split"),
    ],
)
def test_a_wrong_folder(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "records.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(ReadError, match=message):
        derive_priors(tmp_path)


def test_the_command_line_says_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["priors", "--data", str(tmp_path), "--output", str(tmp_path / "p.json")]
    monkeypatch.setattr(sys, "argv", ["medreasoner-train", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "p.json").exists()


def test_shipped_numbers_are_whole() -> None:
    priors = load_priors()
    assert priors.provenance.split == "train"
    assert priors.provenance.data == "umrg_mini"
    for found in priors.structures.values():
        for prior in found.values():
            assert prior.images > 0
            assert (prior.region is None) == (prior.overlap is None)


def test_shipped_numbers_are_of_the_data_set() -> None:
    folder = Path(os.environ.get("MEDREASONER_SHARED", "")) / "data" / "umrg_mini"
    if not os.environ.get("MEDREASONER_SHARED") or not folder.is_dir():
        pytest.skip("MEDREASONER_SHARED names no folder with data/umrg_mini")
    records = open_data(folder, "train").records
    priors = load_priors()
    assert priors.provenance.records == len(records)
    used = [prior.images for found in priors.structures.values() for prior in found.values()]
    assert sum(used) == len(records)
