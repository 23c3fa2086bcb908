"""The shipped reasoner says without torch what transformers says from the same files."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medreasoner_trainer.construct.clues import ask_about, load_clues
from napari_medreasoner.engines.embedded.graphs import SHIPPED
from napari_medreasoner.engines.embedded.patches import resized
from napari_medreasoner.engines.embedded.small_qwen import SmallQwenReasoner, shipped
from napari_medreasoner.imaging.samples import SampleCase, sample_cases
from napari_medreasoner.imaging.window import default_window, to_rgb, to_uint8
from tests.trainer.embedded.spoken import Spoken

CASES = sample_cases()
QUESTIONS = 10


@pytest.fixture(scope="module")
def both() -> tuple[SmallQwenReasoner, Spoken]:
    return shipped(), Spoken(SHIPPED / "small-qwen")


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_greedy_answers_are_the_same(
    case: SampleCase, both: tuple[SmallQwenReasoner, Spoken]
) -> None:
    ours, theirs = both
    image = case.load()
    pixels = image.array if case.slice_index is None else image.array[case.slice_index]
    whole: NDArray[np.uint8] = to_rgb(to_uint8(pixels, default_window(image)))
    height, width = whole.shape[:2]
    picture = resized(whole, ours.frame(width, height))
    draw = np.random.default_rng(5)
    categories = sorted(load_clues())
    asked = [ask_about(str(draw.choice(categories)), draw) for _ in range(QUESTIONS - 1)]
    for question in (case.question, *asked):
        assert "".join(ours.pieces(question, picture)) == theirs.said(question, picture)
