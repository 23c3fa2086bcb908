"""Checkpoints that several tests read; nobody writes to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_medreasoner.core.prompts import Message
from napari_medreasoner.engines.base import ReasonerInput
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.registry import create_reasoner
from tests.checkpoints.teaching import Lesson, teach
from tests.checkpoints.vlm import qwen2_5_vl

PICTURE = np.random.default_rng(1).integers(0, 255, (90, 150, 3), dtype=np.uint8)
"""Qwen2.5-VL resizes it to 140 x 84."""

FITTING = PICTURE[:84, :140]
"""A picture in whole patches, which nobody resizes."""

ANSWERS = {
    "both": (
        "<think>Round and bright é漢😀.</think>\n"
        '<answer>{"bbox": [14, 28, 42, 56], "points_1": [20, 40], "points_2": [30, 50]}</answer>'
    ),
    "box": (
        "<think>Dark, to the left.</think>\n"
        '<answer>```json\n[{"bbox_2d": [14, 28, 42, 56], "label": "lung"}]\n```</answer> and so on'
    ),
    "points": ('<think>Two ends.</think>\n<answer>{"point_2d": [[20, 40], [30, 50]]}</answer>'),
}
"""What the taught model writes, in its own convention, to each of these questions."""


def asked(question: str, picture: np.ndarray = PICTURE) -> ReasonerInput:
    return ReasonerInput(picture, question, [Message(role="user", content=question)])


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing by sharing, and on busy cores lose twentyfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen2_5_vl(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models in which one is named as a card of the catalogue."""
    folder = qwen2_5_vl(tmp_path_factory.mktemp("models") / "lingshu-7b")
    return teach(folder, [Lesson(PICTURE, *pair) for pair in ANSWERS.items()])


@pytest.fixture(scope="session")
def taught_fitting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for a picture that no server resizes."""
    folder = qwen2_5_vl(tmp_path_factory.mktemp("models") / "lingshu-7b")
    return teach(folder, [Lesson(FITTING, "both", ANSWERS["both"])])


@pytest.fixture
def reach() -> Iterator[Any]:
    """Makes reasoners whose connections are closed at the end."""
    made: list[Any] = []

    def make(name: Any, **options: Any) -> Any:
        made.append(create_reasoner(str(name), EngineOptions(**options)))
        return made[-1]

    yield make
    for reasoner in made:
        reasoner._client.close()
