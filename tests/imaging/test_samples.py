import hashlib
import re

import numpy as np
import pytest

from napari_medreasoner.imaging.samples import SampleCase, sample_cases, sample_folder

CASES = sample_cases()


def test_enough_cases_of_several_kinds() -> None:
    assert len(CASES) >= 4
    assert any(case.slice_index is not None for case in CASES)
    assert len({case.modality for case in CASES}) >= 3
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_image_and_mask_lie_on_one_grid(case: SampleCase) -> None:
    image, mask = case.load(), case.load_mask()
    assert image.grid.shape == mask.grid.shape
    assert np.allclose(image.grid.affine, mask.grid.affine, atol=1e-3)
    target = mask.array > 0
    assert 0 < target.mean() < 0.5
    assert image.is_volume == (case.slice_index is not None)
    if case.slice_index is not None:
        areas = target.sum(axis=(1, 2))
        assert areas[case.slice_index] == areas.max()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_question_does_not_name_the_target(case: SampleCase) -> None:
    words = set(re.findall(r"[a-z]+", case.target.lower())) - {"left", "right"}
    assert words
    assert not words & set(re.findall(r"[a-z]+", case.question.lower()))
    assert case.licence
    assert case.source


def test_the_folder_is_small_and_its_files_are_those_listed() -> None:
    folder = sample_folder()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 8e6
    listed = dict(
        line.split("  ")[::-1]
        for line in (folder / "README.md").read_text().splitlines()
        if re.match(r"[0-9a-f]{64}  ", line)
    )
    files = {name for case in CASES for name in (case.image, case.mask)}
    assert set(listed) == files
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
