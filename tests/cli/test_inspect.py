import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medreasoner.cli.app import app
from napari_medreasoner.core.errors import ReadError
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
    with pytest.raises(ReadError):
        run("inspect", tmp_path / "x.nii")


@pytest.fixture(params=["full disk", "reader gone"])
def lost(request: pytest.FixtureRequest) -> Iterator[IO[bytes]]:
    """A file to which nothing can be written."""
    if request.param == "full disk":
        if not Path("/dev/full").exists():
            pytest.skip("this system has no /dev/full")
        with Path("/dev/full").open("wb") as full:
            yield full
        return
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        yield pipe


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_output_that_is_lost_is_a_sentence_and_exit_2(
    lost: IO[bytes], form: tuple[str, ...]
) -> None:
    command = (sys.executable, "-m", "napari_medreasoner.cli", "inspect", str(KIDNEY), *form)
    done = subprocess.run(command, stdout=lost, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("medreasoner: The card cannot be written (")
    assert done.stderr.count("\n") == 1
