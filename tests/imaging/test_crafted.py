"""Files made to harm: each is refused for what it is, and this process hardly grows."""

import gzip
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import read_image
from napari_medreasoner.imaging.sandbox import read_sandboxed
from tests.imaging.crafted import CANARY, HEADERS, bombs, detached, directory
from tests.imaging.dicom_series import bundled
from tests.imaging.forks import Outcome, read_each, small

itk: Any = pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("crafted")
    for name, data in HEADERS.items():
        (folder / name).write_bytes(data)
    with small():
        return read_each([folder / name for name in HEADERS])


@pytest.mark.parametrize("name", HEADERS)
def test_header_that_lies_is_refused(refusals: dict[str, Outcome], name: str) -> None:
    kind, text = refusals[name]
    assert kind == "ReadError", text
    assert text.startswith(f"{name} ")
    assert text.endswith(".")
    assert "memory" not in text  # seen in the header, not by running out


@pytest.fixture(scope="module")
def made_bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name, data in bombs().items():
        (folder / name).write_bytes(data)
    return folder


BOMBS = (
    "bomb.dcm", "bombwithin.dcm", "bombelsewhere.dcm", "bomb.nii.gz", "bomblying.nii.gz",
    "bombinbomb.nii.gz", "bomb.nrrd", "bomblying.nrrd", "bomb.mha", "bomblying.mha", "bomb.png",
    "large.png", "text.png", "bomb.tif",
)  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_in_little_memory(made_bombs: Path, name: str) -> None:
    with small(), pytest.raises(ReadError, match=name) as caught:
        read_sandboxed(made_bombs / name, memory=2**30)
    assert "memory" not in str(caught.value)
    assert "longer" not in str(caught.value)


def test_every_bomb_is_tried(made_bombs: Path) -> None:
    assert {path.name for path in made_bombs.iterdir()} == set(BOMBS)


@pytest.mark.parametrize("target", ["canary1.raw", "absolute", "/etc/passwd"])
def test_header_that_points_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    canary = tmp_path / "canary1.raw"
    canary.write_bytes(CANARY)
    os.utime(canary, (1, 2))  # an old access time, which reading makes new
    before = canary.stat().st_atime_ns
    for name, data in detached(str(canary) if target == "absolute" else target).items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ReadError, match=name):
            read_image(path)
    assert canary.stat().st_atime_ns == before


def test_canary_would_have_been_read(tmp_path: Path) -> None:
    # The control: SimpleITK alone follows such headers, so the test above tests something.
    (tmp_path / "canary1.raw").write_bytes(CANARY)
    for name in ("3.mha", "14.nrrd"):
        (tmp_path / name).write_bytes(detached("canary1.raw")[name])
        image = itk.ReadImage(str(tmp_path / name))
        assert itk.GetArrayFromImage(image).tobytes() == CANARY


def test_a_dicomdir_leads_to_no_other_folder(tmp_path: Path) -> None:
    disc = tmp_path / "disc"
    disc.mkdir()
    (tmp_path / "secret.dcm").write_bytes(bundled("CT_small.dcm").read_bytes())
    for target in ("../secret.dcm", str(tmp_path / "secret.dcm")):
        (disc / "DICOMDIR").write_bytes(directory(target))
        with pytest.raises(ReadError, match="holds no DICOM images"):
            read_image(disc)


class Gadget:
    """Runs a command when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def test_pickles_under_image_names_are_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    gadget = pickle.dumps(Gadget(canary))
    array = io.BytesIO()
    np.save(array, np.array([Gadget(canary)], dtype=object), allow_pickle=True)
    paths = []
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif", ".dcm", ".npy"):
        for number, data in enumerate((gadget, array.getvalue())):
            paths.append(tmp_path / f"{number}{suffix}")
            paths[-1].write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    assert {outcome.kind for outcome in read_each(paths).values()} == {"ReadError"}
    assert not canary.exists()
