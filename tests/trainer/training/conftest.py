"""What the tests of training share; made once, as nothing changes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a tiny model gains nothing from more

from medreasoner_trainer.training.tiny import make_tiny
from tests.trainer.training.runs import SFT, TAUGHT, train, write_data


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_tiny(folder, 300_000, layers=2)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="session")
def supervised(tiny: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that taught the tiny model to write answers."""
    out = tmp_path_factory.mktemp("supervised")
    train(tiny, data, out, *SFT, *TAUGHT)
    return out


@pytest.fixture(scope="session")
def taught(supervised: Path) -> Path:
    """The model that it taught."""
    return supervised / "checkpoint-80"
