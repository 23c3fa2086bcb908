import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medreasoner.cli.app import app
from napari_medreasoner.core.errors import ExportError, ReadError
from napari_medreasoner.imaging import read_image
from napari_medreasoner.imaging.samples import sample_folder

KIDNEY = sample_folder() / "ct-left-kidney.nii.gz"


def run(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_card_says_what_the_file_holds() -> None:
    card = json.loads(run("inspect", KIDNEY, "--json"))
    image = nib.load(KIDNEY)
    assert card["shape"] == list(image.shape[::-1])
    assert card["spacing_mm"] == pytest.approx([3, 3, 3])
    assert card["file_axes"] == "".join(nib.aff2axcodes(image.affine)) == "LPS"
    assert np.allclose(card["affine_ras"], image.affine, atol=1e-5)
    assert card["geometry"] == "known"
    table = run("inspect", KIDNEY)
    assert "file axes" in table
    assert "44" in table


def test_a_picture_has_no_millimetres() -> None:
    card = json.loads(run("inspect", sample_folder() / "fundus-optic-disc.png", "--json"))
    assert card["spacing_mm"] is None
    assert card["colour"]
    assert "assumed" in card["geometry"]


def test_what_is_refused_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.nii").write_bytes(b"no")
    for command in (["inspect", tmp_path / "x.nii"], ["convert", tmp_path / "x.nii", "y.nii"]):
        with pytest.raises(ReadError):
            run(*command)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_image_converts_without_a_change(tmp_path: Path, suffix: str) -> None:
    run("convert", KIDNEY, tmp_path / f"out{suffix}")
    before, after = nib.load(KIDNEY), nib.load(tmp_path / f"out{suffix}")
    assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj))
    assert after.get_data_dtype() == before.get_data_dtype()
    assert np.allclose(before.affine, after.affine, atol=1e-5)


def test_a_colour_picture_converts_and_comes_back(tmp_path: Path) -> None:
    source = sample_folder() / "histology-gland.png"
    run("convert", source, tmp_path / "out.nii.gz")
    assert np.array_equal(read_image(tmp_path / "out.nii.gz").array, read_image(source).array)
    with pytest.raises(ExportError, match="must end in"):
        run("convert", source, tmp_path / "out.jpg")
