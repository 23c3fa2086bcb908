"""Damaged files: each mutant is an image or a ReadError, and what is good is not refused."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.itk import read_itk
from napari_medreasoner.imaging.readers.nifti import read_nifti
from napari_medreasoner.imaging.sandbox import read_sandboxed
from tests.imaging.forks import read_each, small
from tests.imaging.good_files import VOXELS, good_files, nrrd, packed_mha
from tests.imaging.mutants import SUFFIXES, mutant

MUTANTS = 150

pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("kind", SUFFIXES)
def test_mutants_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    paths = [tmp_path / f"{number}{SUFFIXES[kind]}" for number in range(MUTANTS)]
    for number, path in enumerate(paths):
        path.write_bytes(mutant(kind, 1, number))
    with small():
        outcomes = read_each(paths)
    assert len(outcomes) == MUTANTS
    assert {outcome.kind for outcome in outcomes.values()} == {"Volume", "ReadError"}
    refused = [name for name, outcome in outcomes.items() if outcome.kind == "ReadError"]
    assert all(outcomes[name].text.startswith(f"{name} ") for name in refused)
    assert len(refused) > MUTANTS // 5


@pytest.mark.parametrize("kind", SUFFIXES)
def test_mutants_come_from_files_that_open_and_can_be_made_again(tmp_path: Path, kind: str) -> None:
    paths = []
    for number, data in enumerate(good_files(kind)):
        paths.append(tmp_path / f"{number}{SUFFIXES[kind]}")
        paths[-1].write_bytes(data)
    assert {outcome.kind for outcome in read_each(paths).values()} == {"Volume"}
    made = [mutant(kind, 1, number) for number in range(50)]
    assert made == [mutant(kind, 1, number) for number in range(50)]
    assert len({*made, *(mutant(kind, 2, number) for number in range(50))}) > 80


def test_one_wrong_bit_in_compressed_voxels_is_found(tmp_path: Path) -> None:
    files = {
        "a.nrrd": nrrd(gzip.compress(VOXELS), encoding="gzip"),
        "a.mha": packed_mha(zlib.compress(VOXELS)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert read_itk(tmp_path / name).array.tobytes() == VOXELS
        for bit in range(8 * 40, 8 * 60, 3):
            flipped = bytearray(data)
            flipped[-(bit // 8)] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(flipped)
            with pytest.raises(ReadError, match=name):
                read_itk(tmp_path / name)


def test_checks_do_not_refuse_what_is_good(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    # A label map of a whole CT, all but empty: 400:1.
    image: Any = nib.Nifti1Image(np.zeros((512, 512, 100), np.uint8), np.diag([1, 1, 2, 1.0]))
    path.write_bytes(gzip.compress(image.to_bytes(), 6))
    assert read_nifti(path).array.shape == (100, 512, 512)
    big = image.header.as_byteswapped(">")
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), ">i2"), np.eye(4), big), tmp_path / "c.nii")
    assert read_sandboxed(tmp_path / "c.nii").array.dtype.isnative
