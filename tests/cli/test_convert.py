from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from napari_medreasoner.cli.app import app
from napari_medreasoner.core.errors import ExportError, ImageError, ReadError, SettingsError
from napari_medreasoner.imaging import Segment, read_image, write_segments
from napari_medreasoner.imaging.samples import sample_folder
from tests.imaging.dicom_series import COUNT, OBLIQUE, STEP, series

KIDNEY = sample_folder() / "ct-left-kidney.nii.gz"
KIDNEY_MASK = sample_folder() / "ct-left-kidney-mask.nii.gz"


def run(*words: str | Path) -> str:
    done = CliRunner().invoke(app, ["convert", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A folder with one oblique series, stored from the top down."""
    offsets = -np.arange(COUNT) * STEP
    series(tmp_path / "scan", orientation=OBLIQUE, offsets=offsets, StudyInstanceUID="1.2.5")
    return tmp_path / "scan"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_an_image_converts_and_comes_back_without_a_change(tmp_path: Path, suffix: str) -> None:
    assert f"out{suffix}" in run(KIDNEY, tmp_path / f"out{suffix}")
    run(tmp_path / f"out{suffix}", tmp_path / "back.nii.gz")
    before, after = nib.load(KIDNEY), nib.load(tmp_path / "back.nii.gz")
    assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj))
    assert after.get_data_dtype() == before.get_data_dtype()
    assert np.allclose(before.affine, after.affine, atol=1e-5)


def test_a_picture_converts_and_comes_back(tmp_path: Path) -> None:
    source = sample_folder() / "histology-gland.png"
    run(source, tmp_path / "out.nii.gz")
    run(tmp_path / "out.nii.gz", tmp_path / "out.png")
    assert np.array_equal(read_image(tmp_path / "out.png").array, read_image(source).array)
    with pytest.raises(ExportError, match="must end in"):
        run(source, tmp_path / "out.jpg")
    with pytest.raises(ExportError, match="without changing it"):
        run(KIDNEY, tmp_path / "volume.png")


def test_a_label_map_becomes_a_segmentation_of_its_series(tmp_path: Path, scan: Path) -> None:
    volume = read_image(scan)
    masks = [volume.array % 7 == 3, volume.array % 7 == 5]
    segments = [Segment(mask, value) for mask, value in zip(masks, (2, 300), strict=True)]
    write_segments(tmp_path / "mask.nii.gz", segments, volume)
    run(tmp_path / "mask.nii.gz", tmp_path / "seg.dcm", "--like", scan)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["Label 2", "Label 300"]
    numbers = [
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    counts = [seg.pixel_array[np.array(numbers) == number].sum() for number in (1, 2)]
    assert counts == [mask.sum() for mask in masks]


def test_like_gives_a_mask_the_axes_of_another_file(tmp_path: Path) -> None:
    turned = nib.load(KIDNEY_MASK).as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(turned, tmp_path / "turned.nii.gz")
    run(tmp_path / "turned.nii.gz", tmp_path / "out.nii.gz", "--like", KIDNEY)
    before, after = nib.load(KIDNEY_MASK), nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj))
    assert np.allclose(before.affine, after.affine, atol=1e-4)


def test_another_grid_is_refused_with_the_distance(tmp_path: Path, scan: Path) -> None:
    moved = nib.load(KIDNEY_MASK)
    moved.affine[:3, 3] += (0, 3, 4)
    nib.save(nib.Nifti1Image(np.asanyarray(moved.dataobj), moved.affine), tmp_path / "moved.nii")
    for target in ("out.nii", "out.nrrd", "out.dcm"):
        with pytest.raises(ImageError, match="lie up to 5 mm apart"):
            run(tmp_path / "moved.nii", tmp_path / target, "--like", KIDNEY)
        with pytest.raises(ImageError, match="different sizes"):
            run(KIDNEY_MASK, tmp_path / target, "--like", scan)
        assert not (tmp_path / target).exists()


def test_what_makes_no_segmentation_is_refused(tmp_path: Path, scan: Path) -> None:
    target = tmp_path / "seg.dcm"
    with pytest.raises(SettingsError, match="--like"):
        run(KIDNEY_MASK, target)
    with pytest.raises(ExportError, match="not read from DICOM"):
        run(KIDNEY_MASK, target, "--like", KIDNEY)
    with pytest.raises(ImageError, match="whole numbers from 0"):
        run(scan, target, "--like", scan)  # intensities below zero
    (tmp_path / "x.nii").write_bytes(b"no")
    with pytest.raises(ReadError):
        run(tmp_path / "x.nii", tmp_path / "y.nii")
    assert not target.exists()


def test_a_slice_of_a_series_that_makes_no_volume(tmp_path: Path) -> None:
    irregular = tmp_path / "irregular"
    series(irregular, offsets=np.array((0, 1, 7, 8)) * STEP, StudyInstanceUID="1.2.5")
    with pytest.raises(ReadError):
        run(irregular, tmp_path / "out.nii")
    run(irregular, tmp_path / "out.nii", "--single", "3")
    voxels = np.asanyarray(nib.load(tmp_path / "out.nii").dataobj)
    marked = nib.Nifti1Image(
        (voxels % 7 == 3).astype(np.uint8), nib.load(tmp_path / "out.nii").affine
    )
    nib.save(marked, tmp_path / "mask.nii")
    run(tmp_path / "mask.nii", tmp_path / "seg.dcm", "--like", irregular, "--single", "3")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.pixel_array.sum() == (voxels % 7 == 3).sum()
    place = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    assert float(place.ImagePositionPatient[2]) == 7 + 7 * STEP
