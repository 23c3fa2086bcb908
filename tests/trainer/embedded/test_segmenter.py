"""Training of the embedded U-Net: prompts like a user's, pictures in step with their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from medreasoner_trainer.data import open_data
from medreasoner_trainer.embedded.recipe import ship_segmenter, train_segmenter, write_sums
from medreasoner_trainer.embedded.segmenter.examples import Source
from medreasoner_trainer.embedded.segmenter.network import PromptUNet
from medreasoner_trainer.embedded.segmenter.simulation import Given, click, given_at_random
from medreasoner_trainer.embedded.segmenter.training import (
    NETWORK,
    SegmenterRecipe,
    SegmenterTraining,
)
from napari_medreasoner.core.errors import ReadError, WeightsError
from napari_medreasoner.core.geometry import Box, Prompts
from napari_medreasoner.core.masks import box_of_mask
from napari_medreasoner.engines.embedded.graphs import open_graph, read_weights
from napari_medreasoner.engines.embedded.window import CHANNELS, SIDE
from napari_medreasoner.engines.models.weights import read_tensors
from napari_medreasoner.engines.registry import create_reasoner, create_segmenter
from tests.trainer.embedded.sets import opened
from tests.trainer.training.runs import lines_of

SMALL = SegmenterRecipe(steps=4, batch=2, warmup=1, corrected=1.0, save=2)


def ellipse(x: float, y: float, across: float, down: float) -> NDArray[np.bool_]:
    row, column = np.ogrid[:SIDE, :SIDE]
    inside: NDArray[np.bool_] = ((column - x) / across) ** 2 + ((row - y) / down) ** 2 <= 1
    return inside


masks = st.builds(
    ellipse, st.floats(50, 110), st.floats(50, 110), st.floats(6, 45), st.floats(6, 45)
)
seeds = st.integers(0, 10_000)


@given(masks, seeds, st.sampled_from(["box", "points", "both", "followed"]))
def test_prompts_point_at_the_target(mask: NDArray[np.bool_], seed: int, kind: str) -> None:
    told = given_at_random(mask, kind, np.random.default_rng(seed))
    assert (told.box is None) == (kind == "points")
    assert (told.previous is not None) == (kind == "followed")
    assert bool(told.positive) == (kind in ("points", "both"))
    assert all(mask[int(y), int(x)] for x, y in told.positive)
    assert not any(mask[int(y), int(x)] for x, y in told.negative)
    if told.box is not None:
        true = box_of_mask(mask).corners
        off = np.abs(np.subtract(told.box, true)).max()
        assert off <= 0.6 * max(true[2] - true[0], true[3] - true[1]) + 12


@given(masks, masks)
def test_a_click_lies_in_the_error(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> None:
    told = click(Given(), truth, found.astype(np.float32))
    assert told.previous is not None
    if (truth == found).all():
        assert told == Given(previous=told.previous)
        return
    assert len(told.positive) + len(told.negative) == 1
    for x, y in told.positive:
        assert (truth & ~found)[int(y), int(x)]
    for x, y in told.negative:
        assert (found & ~truth)[int(y), int(x)]


def test_masks_stay_in_step_with_their_pictures(tmp_path: Path) -> None:
    """Turned, mirrored and stretched, a bright ellipse is still bright where its mask is."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = ellipse(90, 60, 40, 15)
    Image.fromarray((mask * 200).astype(np.uint8)).convert("RGB").save(tmp_path / "images/a.png")
    Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "masks/a.png")
    source = Source(open_data(tmp_path))
    kinds = set()
    for seed in range(30):
        example = source.draw(np.random.default_rng(seed))
        kinds.add(example.kind)
        grey = np.abs(example.seen[:3].mean(axis=0) - np.median(example.seen[:3][:, ~example.mask]))
        inside, outside = grey[example.mask].mean(), grey[~example.mask].mean()
        assert inside > 3 * outside, seed
    assert kinds == {"both", "box", "points", "followed"}


def test_a_run_that_was_broken_off_ends_as_one_that_was_not(data: Path, tmp_path: Path) -> None:
    source = Source(opened(data))

    def broken_off(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt):
        SegmenterTraining(source, SMALL, tmp_path / "broken").run(broken_off)
    SegmenterTraining(source, SMALL, tmp_path / "broken").run(lambda _: None)
    SegmenterTraining(source, SMALL, tmp_path / "whole").run(lambda _: None)
    broken, whole = (read_tensors(tmp_path / name / NETWORK) for name in ("broken", "whole"))
    assert all(torch.equal(broken[name], whole[name]) for name in whole)
    assert [line["step"] for line in lines_of(tmp_path / "broken/log.jsonl")] == [2, 4]


def test_trained_and_shipped_the_network_computes_the_same(data: Path, tmp_path: Path) -> None:
    train_segmenter(data, tmp_path / "run", ["open"], SMALL, lambda _: None)
    assert (tmp_path / "run/curve.png").stat().st_size > 1000
    weights = tmp_path / "weights"
    ship_segmenter(tmp_path / "run", weights)
    write_sums(weights)
    assert len((weights / "SHA256SUMS").read_text("utf-8").splitlines()) == 2
    arrays = read_weights(weights / "unet.safetensors")
    network = PromptUNet()
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in arrays.items()}, strict=False
    )
    planes = torch.randn(3, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = network.eval()(planes).numpy()
    session = open_graph(weights / "unet.onnx", arrays)
    ours = session.run(None, {"planes": planes.numpy()})[0]
    assert np.abs(ours - theirs).max() < 1e-4 * max(1.0, np.abs(theirs).max())


def test_a_retrained_network_is_an_engine_by_its_folder(data: Path, tmp_path: Path) -> None:
    train_segmenter(data, tmp_path / "run", ["open"], SMALL, lambda _: None)
    weights = tmp_path / "weights"
    ship_segmenter(tmp_path / "run", weights)
    retrained = create_segmenter(str(weights))
    assert (retrained.info.name, retrained.info.title) == ("asm", "weights")
    prompts = Prompts(box=Box.from_corners(20, 20, 60, 50))
    picture = np.random.default_rng(0).integers(0, 255, (90, 100, 3), np.uint8)
    ours, shipped = (
        engine.segment(engine.set_image(picture), prompts).mask
        for engine in (retrained, create_segmenter("unet"))
    )
    assert ours.any()
    assert not np.array_equal(ours, shipped)
    (weights / "unet.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"unet\.safetensors"):
        create_segmenter(str(weights))
    with pytest.raises(WeightsError, match=r"config\.json"):
        create_reasoner(str(weights))


def test_tiers_without_records_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="noncommercial"):
        train_segmenter(data, tmp_path, ["noncommercial"], SMALL, lambda _: None)
