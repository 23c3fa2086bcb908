"""The U-Net that ships: its weights, three known cases, and that it does as it is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.errors import PromptError, WeightsError
from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from napari_medreasoner.core.metrics import dice
from napari_medreasoner.engines.base import VolumeInput, VolumeSegmenter
from napari_medreasoner.engines.embedded import graphs
from napari_medreasoner.engines.embedded.unet import UNetSegmenter
from napari_medreasoner.imaging.samples import sample_folder

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

FLAT = ("fundus-optic-disc", "histology-gland", "ct-liver")
KNOWN = {"fundus-optic-disc": 0.983, "histology-gland": 0.937, "ct-liver": 0.959}


def sample(name: str) -> tuple[Pixels, Mask]:
    with Image.open(sample_folder() / f"{name}.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    with Image.open(sample_folder() / f"{name}-mask.png") as image:
        return pixels, np.asarray(image.convert("L")) > 0


@pytest.fixture(scope="module")
def segmenter() -> UNetSegmenter:
    return UNetSegmenter()


def test_the_weights_are_those_of_the_card() -> None:
    for line in (graphs.SHIPPED / "SHA256SUMS").read_text("utf-8").splitlines():
        digest, name = line.split()
        assert hashlib.sha256((graphs.SHIPPED / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("name", FLAT)
def test_known_cases(segmenter: UNetSegmenter, name: str) -> None:
    image, truth = sample(name)
    prompts = Prompts(box=box_of_mask(truth), points=key_points_of_mask(truth))
    found = segmenter.segment(segmenter.set_image(image), prompts)
    assert found.mask.shape == truth.shape
    assert dice(found.mask, truth) == pytest.approx(KNOWN[name], abs=0.01)
    assert 0 <= found.score <= 1


@pytest.mark.parametrize("name", FLAT)
def test_a_box_alone_and_points_alone_are_enough(segmenter: UNetSegmenter, name: str) -> None:
    image, truth = sample(name)
    picture = segmenter.set_image(image)
    for prompts in (Prompts(box=box_of_mask(truth)), Prompts(points=key_points_of_mask(truth))):
        assert dice(segmenter.segment(picture, prompts).mask, truth) > 0.6


def test_clicks_correct_the_mask(segmenter: UNetSegmenter) -> None:
    """A click beside the target adds what lies there, and a negative one takes it away again."""
    image, truth = sample("fundus-optic-disc")
    picture, box = segmenter.set_image(image), box_of_mask(truth)
    first = segmenter.segment(picture, Prompts(box=box))
    edge = Point(x=box.x2 + 3, y=(box.y1 + box.y2) // 2)
    more = segmenter.segment(picture, Prompts(box=box, points=(edge,)), first.state)
    assert more.mask.sum() > first.mask.sum()
    assert more.mask[edge.y, edge.x]
    centre = key_points_of_mask(first.mask)[0]
    less = Prompts(box=box, points=(centre.model_copy(update={"positive": False}),))
    fewer = segmenter.segment(picture, less, first.state)
    assert not fewer.mask[centre.y, centre.x]


def test_another_box_begins_anew(segmenter: UNetSegmenter) -> None:
    image, truth = sample("histology-gland")
    picture, box = segmenter.set_image(image), box_of_mask(truth)
    before = segmenter.segment(picture, Prompts(box=Box.from_corners(0, 0, 40, 40)))
    fresh = segmenter.segment(picture, Prompts(box=box))
    after = segmenter.segment(picture, Prompts(box=box), before.state)
    assert (after.mask == fresh.mask).all()


@pytest.mark.parametrize(
    ("shape", "box"),
    [((1, 1), (0, 0, 1, 1)), ((3, 900), (10, 0, 12, 3)), ((2000, 1500), (0, 0, 1500, 2000))],
)
def test_odd_shapes(
    segmenter: UNetSegmenter, shape: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = segmenter.segment(segmenter.set_image(image), Prompts(box=Box.from_corners(*box)))
    assert found.mask.shape == shape
    assert found.mask.any()


def test_prompts_that_say_nothing_are_refused(segmenter: UNetSegmenter) -> None:
    picture = segmenter.set_image(np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(PromptError):
        segmenter.segment(picture, Prompts(points=(Point(x=3, y=3, positive=False),)))
    with pytest.raises(PromptError):
        segmenter.segment(picture, Prompts(points=(Point(x=30, y=3),)))


def test_a_ball_is_followed_through_its_slices(segmenter: UNetSegmenter) -> None:
    assert isinstance(segmenter, VolumeSegmenter)
    z, y, x = np.ogrid[:24, :96, :96]
    ball = (z - 12) ** 2 * 9 + (y - 48) ** 2 + (x - 48) ** 2 <= 24**2
    noise = np.random.default_rng(0).normal(0, 6, ball.shape)
    grey = np.clip(np.where(ball, 170, 70) + noise, 0, 255).astype(np.uint8)
    pictures = [np.repeat(plane[..., None], 3, axis=-1) for plane in grey]
    request = VolumeInput(
        pictures, 12, Prompts(box=box_of_mask(ball[12])), 3.0, (1.0, 1.0), range(24)
    )
    found = {one.index: one.mask for one in segmenter.propagate(request)}
    assert next(iter(found)) == 12
    whole = np.stack([found.get(i, np.zeros((96, 96), np.bool_)) for i in range(24)])
    assert dice(whole, ball) > 0.85


def test_damaged_weights_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "unet.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match=r"unet\.safetensors"):
        graphs.read_weights(tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError, match=r"missing\.safetensors"):
        graphs.read_weights(tmp_path / "missing.safetensors")
    weights = graphs.read_weights(graphs.SHIPPED / "unet.safetensors")
    weights["head.bias"] = weights["head.bias"][:2]
    with pytest.raises(WeightsError, match=r"unet\.onnx"):
        graphs.open_graph(graphs.SHIPPED / "unet.onnx", weights)
    (tmp_path / "unet.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match=r"unet\.onnx"):
        graphs.open_graph(tmp_path / "unet.onnx", {})
