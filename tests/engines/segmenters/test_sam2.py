"""MedSAM2 through transformers: loading, prompts, volumes."""

import gc
import json
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from napari_medreasoner.core.errors import PromptError, WeightsError  # noqa: E402
from napari_medreasoner.core.geometry import Box, Point, Prompts  # noqa: E402
from napari_medreasoner.engines.base import VolumeInput, VolumeSegmenter  # noqa: E402
from napari_medreasoner.engines.options import EngineOptions  # noqa: E402
from napari_medreasoner.engines.registry import create_segmenter  # noqa: E402
from napari_medreasoner.engines.segmenters.sam2_volume import touching  # noqa: E402
from tests.engines.segmenters.checkpoints import (  # noqa: E402
    SMALL,
    picture,
    prompts,
    save_small_sam2,
    volume,
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
        assert not torch.allclose(states[one], states[other], atol=1e-3), (one, other)


def test_same_prompts_same_mask_and_fed_back_logits_count(segmenter: VolumeSegmenter) -> None:
    embedding = segmenter.set_image(picture(HEIGHT, WIDTH))
    given = prompts(HEIGHT, WIDTH)
    first, again = (segmenter.segment(embedding, given) for _ in range(2))
    assert torch.equal(first.state, again.state)
    corrected = segmenter.segment(embedding, given, previous=first.state)
    assert not torch.allclose(first.state, corrected.state, atol=1e-3)


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


def test_sixteen_bits_give_nearly_the_same(folder: Path, segmenter: VolumeSegmenter) -> None:
    half = create_segmenter(str(folder), EngineOptions(device="cpu", dtype="bfloat16"))
    assert isinstance(half, VolumeSegmenter)
    image, given = picture(HEIGHT, WIDTH, 4), prompts(HEIGHT, WIDTH)
    one, other = (engine.segment(engine.set_image(image), given) for engine in (segmenter, half))
    assert half.set_image(image).nbytes * 2 == segmenter.set_image(image).nbytes
    assert np.mean(one.mask != other.mask) < 0.1
    assert one.score == pytest.approx(other.score, abs=0.05)
    asked = request(span=range(3, 7))
    for one_slice, other_slice in zip(
        segmenter.propagate(asked), half.propagate(asked), strict=True
    ):
        assert one_slice.index == other_slice.index
        assert np.mean(one_slice.mask != other_slice.mask) < 0.1


def test_a_picture_that_does_not_fit_is_encoded_in_less_memory(folder: Path) -> None:
    """The encoder runs out of memory once, as CUDA would."""
    engine = create_segmenter(str(folder), OPTIONS)
    image, given = picture(HEIGHT, WIDTH), prompts(HEIGHT, WIDTH)
    whole = engine.segment(engine.set_image(image), given)
    precisions = []

    def full(_module: Any, inputs: tuple[Any, ...]) -> None:
        precisions.append(torch.is_autocast_enabled("cpu"))
        if len(precisions) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine._model.vision_encoder.register_forward_pre_hook(full)  # type: ignore[attr-defined]
    embedding = engine.set_image(image)
    assert precisions == [False, True]
    made = engine.segment(embedding, given)
    assert np.mean(made.mask != whole.mask) < 0.1


@pytest.mark.parametrize("mask", [None, picture(HEIGHT, WIDTH, 4)[..., 0] > 115])
def test_a_step_that_ran_out_of_memory_half_way_is_done_again(
    folder: Path, segmenter: VolumeSegmenter, mask: Any
) -> None:
    """Memory runs out when the first, then when the third slice is about to be remembered."""
    engine = create_segmenter(str(folder), OPTIONS)
    assert isinstance(engine, VolumeSegmenter)
    asked = request(span=range(4, 8), mask=mask)
    calls = []

    def full(_module: Any, inputs: tuple[Any, ...]) -> None:
        calls.append(None)
        if len(calls) in (1, 4):
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine._model.memory_encoder.register_forward_pre_hook(full)  # type: ignore[attr-defined]
    found = list(engine.propagate(asked))
    whole = list(segmenter.propagate(asked))
    assert len(calls) == 6
    assert [one.index for one in found] == [one.index for one in whole] == [4, 5, 6, 7]
    for one, other in zip(found, whole, strict=True):
        assert np.mean(one.mask != other.mask) < 0.1


class Slices(Sequence[Any]):
    """Slices that are made when asked for, and count how many are alive."""

    def __init__(self, depth: int) -> None:
        self.alive = self.most = 0
        self.asked: list[int] = []
        self._depth = depth

    def __len__(self) -> int:
        return self._depth

    def __getitem__(self, index: Any) -> Any:
        made = picture(HEIGHT, WIDTH, index)
        self.asked.append(index)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(made, self._gone)
        return made

    def _gone(self) -> None:
        self.alive -= 1


def request(depth: int = 9, index: int = 4, **given: Any) -> VolumeInput:
    values = {
        "pictures": volume(depth, HEIGHT, WIDTH),
        "prompts": prompts(HEIGHT, WIDTH),
        "span": range(depth),
        **given,
    }
    return VolumeInput(index=index, along=2.0, across=(1.0, 1.0), **values)


def test_a_structure_is_followed_both_ways_within_the_span(segmenter: VolumeSegmenter) -> None:
    found = list(segmenter.propagate(request(span=range(2, 8))))
    assert [one.index for one in found] == [4, 5, 6, 7, 3, 2]
    assert all(one.mask.shape == (HEIGHT, WIDTH) and one.mask.any() for one in found)
    assert all(0 <= one.score <= 1 for one in found)
    alone = segmenter.segment(
        segmenter.set_image(picture(HEIGHT, WIDTH, 4)), prompts(HEIGHT, WIDTH)
    )
    assert np.array_equal(found[0].mask, alone.mask)


def test_a_given_mask_is_taken_as_it_is_and_counts(segmenter: VolumeSegmenter) -> None:
    disc = picture(HEIGHT, WIDTH, 4)[..., 0] > 115
    for prompted in (Prompts(), prompts(HEIGHT, WIDTH)):
        first, second, *_ = segmenter.propagate(request(prompts=prompted, mask=disc))
        assert np.array_equal(first.mask, disc)
        assert first.score == 1
        assert second.index == 5
    empty, *more = segmenter.propagate(request(mask=np.zeros_like(disc)))
    assert not empty.mask.any()
    assert not more


def test_slices_are_asked_for_one_by_one_and_let_go(segmenter: VolumeSegmenter) -> None:
    slices = Slices(26)
    steps = segmenter.propagate(request(depth=26, index=2, pictures=slices))
    assert set(slices.asked) <= {2}
    for expected in (2, 3, 4):
        assert next(steps).index == expected
        assert max(slices.asked) == expected
    kept = [sum(tensor.nbytes for tensor in tensors()) for _ in zip(range(20), steps, strict=False)]
    assert len(kept) == 20
    assert slices.most <= 3
    # What is remembered grows over the first 15 slices and then no more.
    assert kept[-1] <= kept[16] * 1.01
    steps.close()  # type: ignore[attr-defined]
    del steps
    gc.collect()
    assert slices.alive == 0
    assert sum(tensor.nbytes for tensor in tensors()) < kept[0]


def tensors() -> list[Any]:
    """All tensors there are."""
    return [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]


def test_it_ends_where_the_structure_ends(folder: Path, tmp_path: Path) -> None:
    """A model that never sees an object stops at the first slice after the prompted one."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "blind")
    path = tmp_path / "blind" / "model.safetensors"
    weights = load_file(path)
    weights["mask_decoder.pred_obj_score_head.proj_out.bias"].fill_(-1e3)
    save_file(weights, path, {"format": "pt"})
    blind = create_segmenter(str(tmp_path / "blind"), OPTIONS)
    assert isinstance(blind, VolumeSegmenter)
    disc = picture(HEIGHT, WIDTH)[..., 0] > 115
    assert [one.index for one in blind.propagate(request(mask=disc))] == [4]


def test_only_what_touches_the_last_mask_is_kept() -> None:
    last, mask = np.zeros((2, 9, 12), np.bool_)
    last[2:4, 2:4] = True
    mask[4:6, 4:6] = mask[7:, 7:] = True  # a corner touches; the other does not
    kept = touching(mask, last)
    assert kept.sum() == 4
    assert kept[4:6, 4:6].all()


def test_folders_that_are_not_the_model(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    path = bad / "model.safetensors"
    weights = load_file(path)
    first = next(iter(weights))
    save_file({name: weights[name] for name in weights if name != first}, path, {"format": "pt"})
    with pytest.raises(WeightsError, match="bad is not this model: it lacks"):
        create_segmenter(str(bad), OPTIONS)
    path.write_bytes((folder / path.name).read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"model\.safetensors is cut"):
        create_segmenter(str(bad), OPTIONS)
    shutil.copy(folder / path.name, path)
    for spoilt in (
        {"image_size": "large"},
        {"vision_config": 7},
        {"memory_encoder_hidden_size": 3},
    ):
        config = json.loads((folder / "config.json").read_text())
        (bad / "config.json").write_text(json.dumps({**config, **spoilt}))
        with pytest.raises(WeightsError, match="bad"):
            create_segmenter(str(bad), OPTIONS)
    assert capfd.readouterr() == ("", "")  # all there is to say is in the errors
