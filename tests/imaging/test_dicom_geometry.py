import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import Segment, read_image, write_segments
from napari_medreasoner.imaging.readers.dicom.file import (
    find_series,
    read_dicom,
    read_series,
    read_slice,
    slice_counts,
)
from napari_medreasoner.imaging.readers.kinds import is_dicom
from tests.imaging.dicom_series import (
    AXIAL,
    COLUMNS,
    CORONAL_NEGATIVE,
    COUNT,
    OBLIQUE,
    PATIENT,
    ROWS,
    SAGITTAL,
    SPACING,
    STEP,
    enhanced,
    enhanced_pixels,
    header,
    save,
    series,
    stored_slice,
)


def truth(files: list[Path]) -> dict[float, np.ndarray]:
    """RAS mm of every intensity, straight from the formula of PS3.3 C.7.6.2.1.1."""
    places = {}
    for path in files:
        ds = pydicom.dcmread(path)
        position = np.array(ds.ImagePositionPatient, float)
        across, down = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
        for (row, column), value in np.ndenumerate(ds.pixel_array):
            lps = position + across * ds.PixelSpacing[1] * column + down * ds.PixelSpacing[0] * row
            places[float(value) * slope + intercept] = lps * (-1, -1, 1)
    return places


def farthest(volume: Any, places: dict[float, np.ndarray]) -> float:
    """Largest distance in mm between where a displayed voxel lies and where it should."""
    array = volume.array.reshape(volume.grid.shape)
    assert array.size == len(places)
    return max(
        float(np.linalg.norm((volume.grid.affine @ (x, y, z, 1))[:3] - places[float(value)]))
        for (z, y, x), value in np.ndenumerate(array)
    )


REGULAR: dict[str, dict[str, Any]] = {
    "axial": {},
    "oblique": {"orientation": OBLIQUE},
    "sagittal": {"orientation": SAGITTAL},
    "coronal-negative": {"orientation": CORONAL_NEGATIVE},
    "reversed": {"offsets": -np.arange(COUNT) * STEP},
    "shuffled": {"offsets": np.array((2, 0, 3, 1)) * STEP, "InstanceNumber": (4, 4, 1, 2)},
    "rounded": {"offsets": np.arange(COUNT) * STEP + (0, 0.004, -0.004, 0)},
    "float slope": {"RescaleSlope": 2.5, "RescaleIntercept": -3.25},
    "differing rescale": {"RescaleSlope": (1, 3, 1, 1), "RescaleIntercept": (-1000, 2000, 0, 5000)},
}


@pytest.mark.parametrize("case", REGULAR)
def test_every_voxel_lies_where_the_slices_say(tmp_path: Path, case: str) -> None:
    files = series(tmp_path / "in", **REGULAR[case])
    volume = read_series(files, "head")
    assert volume.name == "head"
    assert volume.modality == "CT"
    assert volume.grid.known
    assert farthest(volume, truth(files)) <= (0.005 if case == "rounded" else 1e-3)
    assert volume.array.dtype == (np.float32 if case == "float slope" else np.int16)


@pytest.mark.parametrize("case", ["axial", "oblique", "sagittal", "coronal-negative", "reversed"])
def test_a_mask_goes_back_to_the_same_places(tmp_path: Path, case: str) -> None:
    files = series(tmp_path / "in", **REGULAR[case])
    volume = read_series(files, "head")
    mask = volume.array > -25
    write_segments(tmp_path / "mask.nii.gz", [Segment(mask)], volume)
    back = read_image(tmp_path / "mask.nii.gz")
    assert np.array_equal(back.array > 0, mask)
    corners = np.array(list(itertools.product((0, 4), (0, 5), (0, 3), (1,)))).T
    assert np.abs((back.grid.affine - volume.grid.affine) @ corners).max() <= 1e-3


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, SAGITTAL, CORONAL_NEGATIVE])
def test_a_single_slice_is_a_picture_in_its_place(tmp_path: Path, orientation: Any) -> None:
    files = series(tmp_path / "in", orientation, [3.0])
    volume = read_dicom(files[0])
    assert volume.array.shape == (ROWS, COLUMNS)
    assert farthest(volume, truth(files)) <= 1e-3
    assert volume.grid.spacing == pytest.approx((3.0, *SPACING))
    write_segments(tmp_path / "mask.nii", [Segment(volume.array > -90)], volume)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"offsets": [0, 2.5, 7.5, 10]}, "a slice is missing between z = 9.50 and 14.50 mm"),
    "two missing": ({"offsets": [0, 2.5, 5, 12.5]}, "2 slices are missing between z = 12.00"),
    "duplicate": ({"offsets": [0, 2.5, 2.5, 5]}, "more than one slice at z = 9.50 mm"),
    "varying": ({"offsets": [0, 2.5, 5, 8.1]}, "3.10 mm between z = 12.00 and 15.10 mm, 2.50 mm"),
    "jitter": ({"offsets": [0, 2.52, 4.98, 7.5]}, "unevenly spaced"),
    "tilt": (
        {"offsets": [(0, i * STEP * np.tan(np.deg2rad(15)), i * STEP) for i in range(4)]},
        "leans 15.0 degrees",
    ),
    "tilt and gap": ({"offsets": [(0, i, 2.0 * i) for i in (0, 1, 3, 4)]}, "leans 26.6 degrees"),
    "beside": (
        {"offsets": [(0, 0, 0), (0, 0.05, 2.5), (0, 0, 5), (0, 0, 7.5)]},
        "straight",
    ),
    "sizes": ({"PixelSpacing": ([1, 1], [1, 1], [1, 2], [1, 1])}, "different pixel spacing"),
    "turned": (
        {"ImageOrientationPatient": (list(AXIAL), list(AXIAL), list(OBLIQUE), list(AXIAL))},
        "different orientation",
    ),
    "references": ({"FrameOfReferenceUID": ("1.1", "1.1", "1.2", "1.1")}, "frames of reference"),
    "no place": ({"ImagePositionPatient": None}, "do not say where they lie"),
    "not unit": ({"ImageOrientationPatient": [1, 0, 0, 0, 2, 0]}, "not two unit vectors"),
    "no spacing": ({"PixelSpacing": [0, 0]}, "no usable PixelSpacing"),
    "slope": ({"RescaleSlope": 0}, "RescaleSlope of 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_regular_volume_is_refused_by_name(tmp_path: Path, case: str) -> None:
    tags, reason = REFUSED[case]
    files = series(tmp_path / "in", **tags)
    with pytest.raises(ReadError, match=reason) as refusal:
        read_series(files, "head")
    assert PATIENT not in str(refusal.value)
    if "separate slices" in str(refusal.value):
        assert slice_counts(files) == (1,) * len(files)
        slices = [read_slice(path, 0, "head 1") for path in files]
        assert [volume.array.shape for volume in slices] == [(ROWS, COLUMNS)] * len(files)
        assert slices[0].name == "head 1"


def test_a_series_of_different_sizes_is_refused(tmp_path: Path) -> None:
    files = series(tmp_path / "in")
    save(files[1], header((0, 0, 1), Rows=3), stored_slice(1)[:3])
    with pytest.raises(ReadError, match="3 x 5 and 6 x 5"):
        read_series(files, "head")
    with pytest.raises(ReadError, match="no slices"):
        read_series([], "head")


def test_enhanced_frames_are_placed_and_rescaled_one_by_one(tmp_path: Path) -> None:
    volume = read_dicom(save(tmp_path / "a.dcm", enhanced(), enhanced_pixels()))
    assert volume.array.shape == (3, ROWS, COLUMNS)
    assert volume.array.dtype == np.int16
    assert volume.grid.spacing == pytest.approx((2.0, *SPACING))
    assert volume.window == (-159.0, 240.0)
    for number in range(3):
        # Frames go down, slices up.
        expected = stored_slice(number) * (number + 1) - 1024 + number
        assert np.array_equal(volume.array[2 - number], expected)
        place = volume.grid.affine @ (2, 3, 2 - number, 1)
        lps = (1 + 2 * SPACING[1], 2 + 3 * SPACING[0], 30 - 2 * number)
        assert np.allclose(place[:3] * (-1, -1, 1), lps, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"StackID": ["1", "1", "2"]}, "2 stacks"),
        ({"TemporalPositionIndex": [1, 2, 3]}, "3 points in time"),
    ],
)
def test_more_than_one_stack_or_time_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    path = save(tmp_path / "a.dcm", enhanced(**content), enhanced_pixels())
    with pytest.raises(ReadError, match=reason):
        read_dicom(path)
    assert slice_counts([path]) == (3,)
    for number in range(3):
        alone = read_slice(path, number, "a")
        assert np.array_equal(alone.array, stored_slice(number) * (number + 1) - 1024 + number)
        assert alone.frames == ((path, number),)
        assert alone.window == (-160 + number, 239 + number)
    with pytest.raises(ReadError, match="frames 1 to 3, no 4"):
        read_slice(path, 3, "a")


def test_enhanced_frames_that_are_missing_from_the_header(tmp_path: Path) -> None:
    ds = enhanced()
    del ds.PerFrameFunctionalGroupsSequence[2]
    with pytest.raises(ReadError, match="describes 2 of 3 frames"):
        read_dicom(save(tmp_path / "a.dcm", ds, enhanced_pixels()))


def test_a_film_has_no_place(tmp_path: Path) -> None:
    ds = header((0, 0, 0), NumberOfFrames=3, Modality="US")
    volume = read_dicom(save(tmp_path / "a.dcm", ds, enhanced_pixels()))
    assert not volume.grid.known
    assert np.array_equal(volume.array, enhanced_pixels())
    assert "does not say where its frames lie" in volume.warnings[0]


def test_series_are_found_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    series(folder, offsets=np.array((2, 0, 3, 1)) * STEP, SeriesDescription="Head\x07 CT")
    series(folder / "sagittal", SAGITTAL)
    outside = series(tmp_path / "outside", SeriesInstanceUID="9.9")
    (folder / "link.dcm").symlink_to(outside[0])
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    (folder / "notes.txt").write_text("hello")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (folder / "DICOMDIR").write_bytes((folder / "0.dcm").read_bytes())
    found = find_series(folder)
    assert [info.slices for info in found] == [4, 4]
    assert [path.name for path in found[0].files] == ["1.dcm", "3.dcm", "0.dcm", "2.dcm"]
    assert found[0].modality == "CT"
    assert found[0].description == "Head CT"
    assert farthest(read_series(found[1].files, "x"), truth(list(found[1].files))) <= 1e-3
    assert is_dicom(found[0].files[0])
    assert not is_dicom(folder)
    assert not is_dicom(folder / "notes.txt")
    with pytest.raises(ReadError, match="cannot be read"):
        find_series(tmp_path / "nowhere")


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "TemporalPositionIdentifier"])
def test_passes_over_the_same_places_are_parted(tmp_path: Path, keyword: str) -> None:
    series(tmp_path / "in", offsets=[0, 2.5, 5, 0, 2.5, 5], **{keyword: (1, 1, 1, 2, 2, 2)})
    found = find_series(tmp_path)
    assert [info.slices for info in found] == [3, 3]
    assert [read_series(info.files, "x").array.shape[0] for info in found] == [3, 3]


def test_acquisitions_that_do_not_repeat_stay_together(tmp_path: Path) -> None:
    series(tmp_path / "in", AcquisitionNumber=(1, 2, 3, 4))
    assert [info.slices for info in find_series(tmp_path)] == [4]


def test_a_multi_frame_file_is_a_series_of_its_own(tmp_path: Path) -> None:
    files = series(tmp_path / "in")
    film = save(tmp_path / "in" / "film.dcm", enhanced(), enhanced_pixels())
    assert sorted(info.slices for info in find_series(tmp_path)) == [3, 4]
    assert read_series([film], "film").name == "film"
    with pytest.raises(ReadError, match="several frames"):
        read_series([*files, film], "x")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path / "in")
    monkeypatch.setattr("napari_medreasoner.imaging.readers.dicom.folder.MAX_FILES", 3)
    with pytest.raises(ReadError, match="more than 3 files"):
        find_series(tmp_path)
