"""MedSAM2 through transformers: loading, prompts, volumes."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from napari_medreasoner.core.errors import PromptError  # noqa: E402
from napari_medreasoner.core.geometry import Box, Point, Prompts  # noqa: E402
from napari_medreasoner.engines.base import VolumeSegmenter  # noqa: E402
from napari_medreasoner.engines.options import EngineOptions  # noqa: E402
from napari_medreasoner.engines.registry import create_segmenter  # noqa: E402
from tests.engines.segmenters.checkpoints import (  # noqa: E402
    SMALL,
    picture,
    prompts,
    save_small_sam2,
)

OPTIONS = EngineOptions(device="cpu")
HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sam2(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> VolumeSegmenter:
    made = create_segmenter(str(folder), OPTIONS)
    assert isinstance(made, VolumeSegmenter)
    return made


def test_it_says_what_it_is(segmenter: VolumeSegmenter) -> None:
    assert segmenter.info.volumes
    assert segmenter.info.prompts == ("box", "points", "negative points")
    assert f"{SMALL} x {SMALL}" in segmenter.info.input_window
    assert segmenter.info.weights.startswith("small ")


def test_each_prompt_counts(segmenter: VolumeSegmenter) -> None:
    embedding = segmenter.set_image(picture(HEIGHT, WIDTH))
    assert embedding.nbytes == sum(
        4 * channels * (SMALL // stride) ** 2 for channels, stride in ((32, 4), (64, 8), (256, 16))
    )
    whole = prompts(HEIGHT, WIDTH)
    yes, no = whole.points
    states = {}
    for name, given in {
        "all": whole,
        "box": Prompts(box=whole.box),
        "box and yes": Prompts(box=whole.box, points=(yes,)),
        "yes": Prompts(points=(yes,)),
        "yes and no": Prompts(points=(yes, no)),
        "moved": Prompts(points=(Point(x=yes.x + 9, y=yes.y), no)),
        "no is yes": Prompts(points=(yes, Point(x=no.x, y=no.y))),
    }.items():
        made = segmenter.segment(embedding, given)
        assert made.mask.shape == (HEIGHT, WIDTH)
        assert made.mask.dtype == np.bool_
        assert 0 <= made.score <= 1
        states[name] = made.state
    names = list(states)
    for one, other in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        assert not torch.allclose(states[one], states[other], atol=1e-4), (one, other)


def test_same_prompts_same_mask_and_fed_back_logits_count(segmenter: VolumeSegmenter) -> None:
    embedding = segmenter.set_image(picture(HEIGHT, WIDTH))
    given = prompts(HEIGHT, WIDTH)
    first, again = (segmenter.segment(embedding, given) for _ in range(2))
    assert torch.equal(first.state, again.state)
    corrected = segmenter.segment(embedding, given, previous=first.state)
    assert not torch.allclose(first.state, corrected.state, atol=1e-4)


def test_prompts_that_cannot_be_used(segmenter: VolumeSegmenter) -> None:
    embedding = segmenter.set_image(picture(HEIGHT, WIDTH))
    for bad in (
        Prompts(),
        Prompts(points=(Point(x=1, y=1, positive=False),)),
        Prompts(points=(Point(x=WIDTH, y=1),)),
        Prompts(box=Box.from_corners(WIDTH, 0, WIDTH + 5, 5)),
    ):
        with pytest.raises(PromptError):
            segmenter.segment(embedding, bad)
