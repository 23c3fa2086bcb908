"""MedSAM2 through transformers gives what the package `sam2` gives, on its own file."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sam2")

from napari_medreasoner.core.errors import MissingEngineError, WeightsError  # noqa: E402
from napari_medreasoner.core.geometry import Prompts  # noqa: E402
from napari_medreasoner.engines.base import Segmenter, VolumeInput  # noqa: E402
from napari_medreasoner.engines.models.catalogue import card_of  # noqa: E402
from napari_medreasoner.engines.options import EngineOptions  # noqa: E402
from napari_medreasoner.engines.registry import create_segmenter  # noqa: E402
from napari_medreasoner.engines.segmenters.common import authors_tensors  # noqa: E402
from napari_medreasoner.engines.segmenters.sam2_reference import (  # noqa: E402
    ReferenceSegmenter,
    build,
)
from napari_medreasoner.engines.segmenters.sam2_volume import Follower  # noqa: E402
from napari_medreasoner.engines.segmenters.sam2_weights import (  # noqa: E402
    Tracker,
    load_authors_file,
)
from tests.engines.segmenters.checkpoints import (  # noqa: E402
    MEDSAM2_FILE,
    SMALL,
    picture,
    prompts,
    save_authors_sam2,
    volume,
)

NAMES = ("medsam2", "medsam2-reference")
CPU = torch.device("cpu")
HEIGHT, WIDTH, DEPTH, INDEX = 70, 100, 11, 2


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    """Both names, with the file of MedSAM2's own size."""
    models = tmp_path_factory.mktemp("models")
    save_authors_sam2(models / NAMES[0])
    shutil.copytree(models / NAMES[0], models / NAMES[1])
    return EngineOptions(device="cpu", models=models)


@pytest.fixture(scope="module")
def both(options: EngineOptions) -> tuple[Segmenter, Segmenter]:
    one, other = (create_segmenter(name, options) for name in NAMES)
    return one, other


def test_pictures_agree_to_the_last_digits(both: tuple[Segmenter, Segmenter]) -> None:
    embeddings = [engine.set_image(picture(HEIGHT, WIDTH)) for engine in both]
    whole = prompts(HEIGHT, WIDTH)
    for given in (
        whole,
        Prompts(box=whole.box),
        Prompts(points=whole.points[:1]),
        Prompts(points=whole.points),
    ):
        states = [None, None]
        for _ in range(2):  # afresh, then with the logits fed back
            ours, theirs = (
                engine.segment(embedding, given, state)
                for engine, embedding, state in zip(both, embeddings, states, strict=True)
            )
            states = [ours.state, theirs.state]
            assert torch.allclose(ours.state, theirs.state, atol=1e-5, rtol=0)
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            assert (ours.mask != theirs.mask).mean() < 1e-3
            assert float(ours.state.std()) > 1e-2  # there is something to agree on


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tracker, ReferenceSegmenter]:
    """The same weights in both, for squares small enough to follow through a volume."""
    path = save_authors_sam2(tmp_path_factory.mktemp("small"), SMALL)
    model = build(SMALL)
    model.load_state_dict(authors_tensors(path))
    reference = ReferenceSegmenter(
        card_of("medsam2-reference"), model, "", EngineOptions(device="cpu")
    )
    return load_authors_file(path, SMALL), reference


def request(**given: object) -> VolumeInput:
    values = {
        "pictures": volume(DEPTH, HEIGHT, WIDTH),
        "index": INDEX,
        "prompts": prompts(HEIGHT, WIDTH),
        "along": 2.0,
        "across": (1.0, 1.0),
        "span": range(DEPTH),
        **given,
    }
    return VolumeInput(**values)  # type: ignore[arg-type]


DISC = picture(HEIGHT, WIDTH)[..., 0] > 115


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prompts": Prompts(points=prompts(HEIGHT, WIDTH).points[:1])},
        {"prompts": Prompts(), "mask": DISC},
    ],
    ids=["box and points", "point", "mask"],
)
def test_volumes_agree_to_the_last_digits(
    small: tuple[Tracker, ReferenceSegmenter], given: dict[str, object]
) -> None:
    model, reference = small
    asked = request(**given)
    for backwards in (False, True):
        follower = Follower(model, asked, CPU, torch.float32)
        follower.start()
        seen = 0
        for index, theirs, _ in reference.tracked(asked, backwards=backwards):
            if index != INDEX:
                ours, _ = follower.step(index, backwards=backwards)
                assert torch.allclose(ours, theirs, atol=1e-5, rtol=0), index
                seen += 1
        assert seen == (INDEX if backwards else DEPTH - 1 - INDEX)


def test_what_is_remembered_counts(small: tuple[Tracker, ReferenceSegmenter]) -> None:
    """Else agreement on volumes would say nothing of memory."""
    model, _ = small
    found = []
    for mask in (DISC, ~DISC):
        follower = Follower(model, request(mask=mask), CPU, torch.float32)
        follower.start()
        found.append(follower.step(INDEX + 1, backwards=False)[0])
    assert float((found[0] - found[1]).abs().max()) > 1e-3


def test_reference_follows_as_ours_does(small: tuple[Tracker, ReferenceSegmenter]) -> None:
    model, reference = small
    asked = request(span=range(INDEX - 1, INDEX + 2))
    ours = list(Follower(model, asked, CPU, torch.float32).masks())
    theirs = list(reference.propagate(asked))
    assert [one.index for one in ours] == [INDEX, INDEX + 1, INDEX - 1]
    assert [one.index for one in theirs] == [one.index for one in ours]
    for one, other in zip(ours, theirs, strict=True):
        assert np.mean(one.mask != other.mask) < 1e-3
        assert 0 <= one.score <= 1
        assert 0 <= other.score <= 1


def test_files_that_are_not_the_model(options: EngineOptions, tmp_path: Path) -> None:
    assert options.models is not None
    whole = (options.models / NAMES[0] / MEDSAM2_FILE).read_bytes()
    tensors = dict(authors_tensors(options.models / NAMES[0] / MEDSAM2_FILE))
    first, *_, last = tensors

    def refused(said: str) -> None:
        for name in NAMES:
            with pytest.raises(WeightsError, match=said):
                create_segmenter(name, EngineOptions(device="cpu", models=tmp_path))

    def save(found: object) -> None:
        for name in NAMES:
            (tmp_path / name).mkdir(exist_ok=True)
            torch.save(found, tmp_path / name / MEDSAM2_FILE)

    save({"model": {name: tensor for name, tensor in tensors.items() if name != first}})
    refused(f"{MEDSAM2_FILE} is not this model: it lacks ")
    save({"model": {**tensors, "blocks.7.weight": tensors[last]}})
    refused(r"it has no place for blocks\.7\.weight")
    save({"model": {**tensors, "no_mem_embed": torch.zeros(1, 1, 3)}})
    refused("it has another shape of no_mem")
    for other in ({"epoch": 3}, {}):
        save({"model": other})
        refused("holds no model")
    for name in NAMES:
        (tmp_path / name / MEDSAM2_FILE).write_bytes(whole[: len(whole) // 2])
    refused(f"{MEDSAM2_FILE} is cut or damaged")
    for name in NAMES:
        (tmp_path / name / MEDSAM2_FILE).unlink()
    refused(f"holds none of {MEDSAM2_FILE}")


def test_without_the_package_its_extra_is_named(
    options: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, ReferenceSegmenter.__module__)
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    with pytest.raises(MissingEngineError, match=r"napari-medreasoner\[reference\]"):
        create_segmenter("medsam2-reference", options)
