"""MedSAM and SAM-Med2D: loading, and their authors' protocols."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from napari_medreasoner.core.errors import PromptError, WeightsError  # noqa: E402
from napari_medreasoner.core.geometry import Point, Prompts  # noqa: E402
from napari_medreasoner.engines.base import Segmenter, VolumeSegmenter  # noqa: E402
from napari_medreasoner.engines.options import EngineOptions  # noqa: E402
from napari_medreasoner.engines.registry import create_segmenter  # noqa: E402
from napari_medreasoner.engines.segmenters import medsam, sam_med2d  # noqa: E402
from napari_medreasoner.engines.segmenters.sam_med2d_weights import (  # noqa: E402
    load_authors_file,
)
from tests.engines.segmenters.checkpoints import (  # noqa: E402
    SAM_MED2D_FILE,
    SMALL,
    picture,
    prompts,
    save_small_medsam,
    save_small_sam_med2d,
)

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    save_small_medsam(models / "medsam")
    save_small_sam_med2d(models / "sam-med2d")
    return models


@pytest.fixture(scope="module", params=["medsam", "sam-med2d"])
def segmenter(models: Path, request: pytest.FixtureRequest) -> Segmenter:
    return create_segmenter(request.param, EngineOptions(device="cpu", models=models))


def test_both_say_what_they_are(segmenter: Segmenter) -> None:
    assert not isinstance(segmenter, VolumeSegmenter)
    assert not segmenter.info.volumes
    assert f"{SMALL} x {SMALL}" in segmenter.info.input_window
    taken = {"medsam": ("box",), "sam-med2d": ("box", "points", "negative points")}
    assert segmenter.info.prompts == taken[segmenter.info.name]


def test_both_segment_and_a_moved_box_moves_the_mask(segmenter: Segmenter) -> None:
    embedding = segmenter.set_image(picture(HEIGHT, WIDTH))
    assert embedding.nbytes == 4 * 256 * (SMALL // 16) ** 2
    box = prompts(HEIGHT, WIDTH).box
    assert box is not None
    first = segmenter.segment(embedding, Prompts(box=box))
    again = segmenter.segment(embedding, Prompts(box=box))
    moved = segmenter.segment(embedding, Prompts(box=box.padded(9)))
    assert first.mask.shape == (HEIGHT, WIDTH)
    assert first.mask.dtype == np.bool_
    assert 0 <= first.score <= 1
    assert np.array_equal(first.mask, again.mask)
    assert first.score == again.score
    assert first.score != moved.score
    with pytest.raises(PromptError):
        segmenter.segment(embedding, Prompts())


def test_sixteen_bits_give_nearly_the_same(models: Path, segmenter: Segmenter) -> None:
    half = create_segmenter(
        segmenter.info.name, EngineOptions(device="cpu", dtype="bfloat16", models=models)
    )
    image, given = picture(HEIGHT, WIDTH), prompts(HEIGHT, WIDTH)
    one, other = (engine.segment(engine.set_image(image), given) for engine in (segmenter, half))
    assert half.set_image(image).nbytes * 2 == segmenter.set_image(image).nbytes
    assert np.mean(one.mask != other.mask) < 0.1
    assert one.score == pytest.approx(other.score, abs=0.05)


def test_points_have_no_effect_on_medsam_and_it_says_so(models: Path) -> None:
    engine = create_segmenter("medsam", EngineOptions(device="cpu", models=models))
    embedding = engine.set_image(picture(HEIGHT, WIDTH))
    whole = prompts(HEIGHT, WIDTH)
    one, other = (engine.segment(embedding, given) for given in (whole, Prompts(box=whole.box)))
    assert one.score == other.score
    assert np.array_equal(one.mask, other.mask)
    assert one.state is None
    assert "points have no effect" in engine.info.description
    with pytest.raises(PromptError, match="MedSAM takes a box"):
        engine.segment(embedding, Prompts(points=whole.points))


def test_points_and_fed_back_logits_count_in_sam_med2d(models: Path) -> None:
    engine = create_segmenter("sam-med2d", EngineOptions(device="cpu", models=models))
    embedding = engine.set_image(picture(HEIGHT, WIDTH))
    whole = prompts(HEIGHT, WIDTH)
    yes, no = whole.points
    states = [
        engine.segment(embedding, given).state
        for given in (
            whole,
            Prompts(box=whole.box),
            Prompts(points=(yes,)),
            Prompts(points=(yes, no)),
            Prompts(points=(yes, Point(x=no.x, y=no.y))),
        )
    ]
    states.append(engine.segment(embedding, whole, states[0]).state)
    for i, one in enumerate(states):
        for other in states[i + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3)


def test_medsam_stretches_grey_levels_and_sam_med2d_does_not() -> None:
    image = picture(HEIGHT, WIDTH)
    dim = (image // 4 * 2).astype(np.uint8)  # what is lost is in both
    bright = (image // 4 * 4).astype(np.uint8)
    stretched = [medsam.prepared(shown, SMALL) for shown in (dim, bright)]
    assert float(stretched[0].min()) == 0
    assert float(stretched[0].max()) == 1
    assert torch.allclose(*stretched, atol=0.02)
    plain = [sam_med2d.prepared(shown, SMALL) for shown in (dim, bright)]
    assert float((plain[0] - plain[1]).abs().max()) > 1
    flat = medsam.prepared(np.full((9, 7, 3), 5, np.uint8), SMALL)
    assert flat.shape == (3, SMALL, SMALL)
    assert not flat.any()


def test_grey_and_coloured_pictures_are_prepared_alike() -> None:
    grey = picture(HEIGHT, WIDTH)
    tinted = grey.copy()
    tinted[0, 0, 2] ^= 1
    one, other = (medsam.prepared(shown, SMALL) for shown in (grey, tinted))
    assert one.shape == other.shape == (3, SMALL, SMALL)
    assert torch.equal(one[:2], other[:2])


def test_sam_med2d_takes_nearest_pixels_normalised_as_imagenet() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[1, 0] = (255, 0, 51)
    found = sam_med2d.prepared(image, 4)
    assert found.shape == (3, 4, 4)
    expected = (np.array([1, 0, 0.2]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for row in (2, 3):
        for column in (0, 1):
            assert found[:, row, column].numpy() == pytest.approx(expected, abs=1e-5)
    assert float(found[0, 0, 0]) == pytest.approx(-0.485 / 0.229, abs=1e-5)


def test_adapters_of_sam_med2d_are_where_its_authors_put_them(models: Path) -> None:
    """A layer by hand, from the tensors of the file."""
    path = models / "sam-med2d" / SAM_MED2D_FILE
    tensors = torch.load(path, weights_only=True)["model"]
    block = "image_encoder.blocks.1."
    functional = torch.nn.functional

    def norm(values: Any, name: str, eps: float) -> Any:
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return functional.layer_norm(values, values.shape[-1:], weight, bias, eps)

    model = load_authors_file(path)
    layer = model.vision_encoder.layers[1]
    hidden = torch.randn(1, 8, 8, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attended = hidden + layer.attn(layer.layer_norm1(hidden))[0]
        normed = norm(attended, f"{block}norm2", 1e-6)
        lin1, lin2 = (
            (tensors[f"{block}mlp.{name}.weight"], tensors[f"{block}mlp.{name}.bias"])
            for name in ("lin1", "lin2")
        )
        perceptron = functional.linear(functional.gelu(functional.linear(normed, *lin1)), *lin2)
        grid = normed.movedim(-1, 1)
        squeezed = (grid.mean((2, 3)) @ tensors[f"{block}Adapter.channel.0.weight"].T).relu()
        weights = (squeezed @ tensors[f"{block}Adapter.channel.2.weight"].T).sigmoid()
        coarse = functional.conv2d(
            grid * weights[:, :, None, None],
            tensors[f"{block}Adapter.spatial.0.weight"],
            stride=2,
            padding=1,
        ).relu()
        fine = functional.conv_transpose2d(
            coarse, tensors[f"{block}Adapter.spatial.2.weight"], stride=2, padding=1
        ).relu()
        adapted = norm((grid + fine).movedim(1, -1), f"{block}Adapter.norm", 1e-5)
        found = layer(hidden)
    assert torch.allclose(found, attended + perceptron + adapted, atol=1e-4)


class Gadget:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.canary),)


def test_files_that_are_not_sam_med2d(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sam-med2d"
    shutil.copytree(models / "sam-med2d", folder)
    path = folder / SAM_MED2D_FILE
    options = EngineOptions(device="cpu", models=tmp_path)
    tensors = torch.load(path, weights_only=True)["model"]
    whole = path.read_bytes()

    def refused(said: str) -> None:
        with pytest.raises(WeightsError, match=said):
            create_segmenter("sam-med2d", options)

    left = {name: tensor for name, tensor in tensors.items() if "Adapter.norm" not in name}
    torch.save({"model": left}, path)
    refused(f"{SAM_MED2D_FILE} is not this model: it lacks .*adapter.norm")
    torch.save({"model": {**tensors, "extra": torch.zeros(1)}}, path)
    refused("has no place for extra")
    torch.save({"weight": torch.zeros(1)}, path)
    refused("is not SAM-Med2D")
    torch.save({"model": tensors, "optimizer": Gadget(tmp_path / "canary")}, path)
    refused("holds more than tensors")
    assert not (tmp_path / "canary").exists()
    path.write_bytes(whole[:5000])
    refused("is cut or damaged")
    path.unlink()
    refused("holds none of sam-med2d_b")
    safe = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(safe, path.with_suffix(".safetensors"))
    assert create_segmenter("sam-med2d", options).info.name == "sam-med2d"


def test_folders_that_are_not_medsam(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "medsam"
    shutil.copytree(models / "medsam", folder)
    options = EngineOptions(device="cpu", models=tmp_path)
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "mask_decoder.iou_token.weight"
    save_file({**weights, name: torch.zeros(1, 3)}, path, {"format": "pt"})
    with pytest.raises(
        WeightsError, match=f"medsam is not this model: it has another shape of {name}"
    ):
        create_segmenter("medsam", options)
    path.unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="which could run code"):
        create_segmenter("medsam", options)
