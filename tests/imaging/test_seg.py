"""DICOM segmentations: the truth is the formula of PS3.3 C.7.6.2.1.1, the readers are others'."""

import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.data import get_charset_files
from pydicom.uid import SecondaryCaptureImageStorage

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging import Segment, Volume, read_image, write_segments
from napari_medreasoner.imaging.readers.dicom.file import read_dicom, read_series
from napari_medreasoner.imaging.writers.terms import TERMS
from tests.imaging.dicom_series import CORONAL_NEGATIVE as CORONAL
from tests.imaging.dicom_series import (
    COUNT,
    OBLIQUE,
    PATIENT,
    SAGITTAL,
    STEP,
    enhanced,
    enhanced_pixels,
    header,
    save,
    series,
    stored_slice,
)

STUDY = {"StudyInstanceUID": "1.2.5"}
DCIODVFY = shutil.which("dciodvfy")
DCMQI = Path(sysconfig.get_path("scripts")) / "segimage2itkimage"


def _series(folder: Path, **how: Any) -> Volume:
    return read_series(series(folder, **how, **STUDY), "x")


def _slice_of_irregular(folder: Path) -> Volume:
    series(folder, offsets=np.array((0, 1, 7, 8)) * STEP, **STUDY)
    return read_image(folder, single=3)


def _enhanced_file(folder: Path, **content: Any) -> Path:
    folder.mkdir()
    ds = enhanced(3, **content)
    ds.StudyInstanceUID = "1.2.5"
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.PixelValueTransformationSequence
    return save(folder / "e.dcm", ds, enhanced_pixels(3))


CASES: dict[str, Callable[[Path], Volume]] = {
    "axial": _series,
    "oblique": lambda folder: _series(folder, orientation=OBLIQUE),
    "reversed": lambda folder: _series(folder, offsets=-np.arange(COUNT) * STEP),
    "sagittal": lambda folder: _series(folder, orientation=SAGITTAL),
    "coronal": lambda folder: _series(folder, orientation=CORONAL),
    "shuffled": lambda folder: _series(
        folder, offsets=np.array((2, 0, 3, 1)) * STEP, InstanceNumber=(4, 4, 1, 2)
    ),
    "rounded": lambda folder: _series(
        folder, offsets=np.arange(COUNT) * STEP + (0, 0.004, -0.004, 0)
    ),
    "printed to 0.1 mm": lambda folder: _series(
        folder, offsets=np.round(np.arange(COUNT) * 0.625, 1)
    ),
    "single slice": lambda folder: _series(folder, offsets=[0.0]),
    "single sagittal": lambda folder: _series(folder, orientation=SAGITTAL, offsets=[0.0]),
    "slice of an irregular series": _slice_of_irregular,
    "anisotropic": lambda folder: _series(folder, offsets=np.arange(COUNT) * 7.5),
    "enhanced": lambda folder: read_dicom(_enhanced_file(folder)),
    "frame of two stacks": lambda folder: read_image(
        _enhanced_file(folder, StackID=("1", "2", "2")), single=2
    ),
}


def _geometry(ds: Any, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ImagePosition, ImageOrientation and PixelSpacing of a frame, plain or in its groups."""
    groups = [ds]
    if "SharedFunctionalGroupsSequence" in ds:
        own = (ds.PerFrameFunctionalGroupsSequence[frame], ds.SharedFunctionalGroupsSequence[0])
        groups = [item for group in own for one in group if one.VR == "SQ" for item in one.value]
    found = [
        next(group[word].value for group in groups if word in group)
        for word in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    ]
    position, orientation, spacing = (np.array(value, float) for value in found)
    return position, orientation, spacing


def _places(ds: Any, frame: int, mask: np.ndarray) -> list[np.ndarray]:
    """LPS millimetres of the centres of a frame's marked pixels."""
    position, orientation, spacing = _geometry(ds, frame)
    across, down = orientation.reshape(2, 3)
    return [
        position + across * spacing[1] * column + down * spacing[0] * row
        for row, column in np.argwhere(mask)
    ]


def _chosen(stored: np.ndarray) -> np.ndarray:
    """An asymmetric choice of the stored values, which occur but once in a series."""
    return (stored % 7 == 3) | (stored % 11 == 4)


def truth(volume: Volume) -> np.ndarray:
    """Where the chosen pixels lie, straight from the headers of the source files."""
    places = []
    for origin in volume.frames:
        ds = pydicom.dcmread(origin.file)
        stored = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)[origin.frame]
        places += _places(ds, origin.frame, _chosen(stored))
    return np.array(places)


def chosen_mask(volume: Volume) -> np.ndarray:
    """The same choice in the image as it is shown: by intensity, wherever it was turned to."""
    return _chosen(volume.array)


def farthest(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest distance in mm between two sets of places of which each has its one partner."""
    assert found.shape == expected.shape
    assert found.size
    distances = np.linalg.norm(found[:, None] - expected[None], axis=2)
    partners = distances.argmin(axis=1)
    assert len(set(partners.tolist())) == len(expected)
    return float(distances.min(axis=1).max())


def by_highdicom(path: Path, segment: int = 1) -> np.ndarray:
    seg = highdicom.seg.segread(path)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    places = []
    for index, frame in enumerate(frames):
        own = seg.PerFrameFunctionalGroupsSequence[index]
        shared = seg.SharedFunctionalGroupsSequence[0]
        group = own if "SegmentIdentificationSequence" in own else shared
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            places += _places(seg, index, frame)
    return np.array(places)


def by_dcmqi(path: Path, folder: Path) -> np.ndarray:
    folder.mkdir()
    words = [DCMQI, "--inputDICOM", path, "--outputDirectory", folder, "-t", "nii"]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    image = SimpleITK.ReadImage(str(folder / "1.nii.gz"))
    marked = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)
    return np.array(
        [
            image.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))
            for z, y, x in marked.tolist()
        ]
    )


def complaints(path: Path) -> list[str]:
    """Errors of dciodvfy; the segmentation must be recognised, or it judged nothing."""
    assert DCIODVFY is not None
    done = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, check=False)
    assert "Segmentation" in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("case", CASES)
def test_every_voxel_lies_where_the_source_says(tmp_path: Path, case: str) -> None:
    volume = CASES[case](tmp_path / "in")
    mask, expected = chosen_mask(volume), truth(volume)
    write_segments(tmp_path / "seg.dcm", [Segment(mask, algorithm="prior 1")], volume)
    assert farthest(by_highdicom(tmp_path / "seg.dcm"), expected) <= 1e-3
    # A grid is the straight line through the slices, which may lie as far off it.
    tolerance = {"rounded": 6e-3, "printed to 0.1 mm": 0.06}.get(case, 1e-3)
    assert farthest(by_dcmqi(tmp_path / "seg.dcm", tmp_path / "q"), expected) <= tolerance
    if DCIODVFY is not None:
        assert complaints(tmp_path / "seg.dcm") == []
    for name in ("m.nii.gz", "m.nrrd"):
        write_segments(tmp_path / name, [Segment(mask)], volume)
        image = SimpleITK.ReadImage(str(tmp_path / name))
        marked = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)[:, ::-1].tolist()
        found = np.array([image.TransformIndexToPhysicalPoint(index) for index in marked])
        assert farthest(found, expected) <= tolerance


def test_the_validator_was_there() -> None:
    if DCIODVFY is None:
        pytest.skip("dciodvfy (package dicom3tools) is not installed: attributes not validated")


def test_segments_may_overlap_and_carry_their_terms(tmp_path: Path) -> None:
    volume = _series(tmp_path / "in")
    term = TERMS["left kidney"]
    all_of_it = np.ones(volume.array.shape, bool)
    one = Segment(chosen_mask(volume), 7, "Niere \u80be", *term, "prior 1, classical 2", True)
    two = Segment(all_of_it, 7, "a\\b" + "x" * 80)
    write_segments(tmp_path / "seg.dcm", [one, two], volume)
    assert farthest(by_highdicom(tmp_path / "seg.dcm", 1), truth(volume)) <= 1e-3
    assert len(by_highdicom(tmp_path / "seg.dcm", 2)) == all_of_it.sum()
    first, second = (seg := pydicom.dcmread(tmp_path / "seg.dcm")).SegmentSequence
    assert seg.SegmentsOverlap == "YES"
    assert seg.SegmentationType == "BINARY"
    assert first.SegmentLabel == "Niere \u80be"
    assert second.SegmentLabel == "a/b" + "x" * 61
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodeMeaning) == term.kind[::2]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentAlgorithmName == "prior 1, classical 2"
    assert second.SegmentAlgorithmType == "MANUAL"
    assert "SegmentationAlgorithmIdentificationSequence" not in second
    assert first.TrackingUID != second.TrackingUID
    if DCIODVFY is not None:
        assert complaints(tmp_path / "seg.dcm") == []


def test_patient_and_study_are_the_source_s_and_the_rest_is_ours(tmp_path: Path) -> None:
    (foreign,) = get_charset_files("chrH31.dcm")
    other = pydicom.dcmread(foreign)
    tags = {"SpecificCharacterSet": other.SpecificCharacterSet, "PatientName": other.PatientName}
    volume = _series(tmp_path / "in", PatientSex="F", **tags)
    for name in ("1.dcm", "2.dcm"):
        write_segments(tmp_path / name, [Segment(chosen_mask(volume))], volume)
    one, two = (pydicom.dcmread(tmp_path / name) for name in ("1.dcm", "2.dcm"))
    source = pydicom.dcmread(volume.frames[0].file)
    assert str(one.PatientName) == str(other.PatientName)
    for word in ("PatientID", "PatientSex", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert one[word].value == source[word].value
    for word in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({one[word].value, two[word].value, source[word].value}) == 3
    assert one.Manufacturer == "napari-medreasoner"
    referred = one.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    files = {pydicom.dcmread(frame.file).SOPInstanceUID for frame in volume.frames}
    assert {item.ReferencedSOPInstanceUID for item in referred} == files


def _refusal(tmp_path: Path, volume: Volume) -> str:
    target = tmp_path / "seg.dcm"
    target.write_bytes(b"the old one")
    with pytest.raises(ExportError) as caught:
        write_segments(target, [Segment(np.ones(volume.array.shape, bool))], volume)
    assert target.read_bytes() == b"the old one"
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert PATIENT not in sentence
    return sentence


def test_images_that_nothing_can_refer_to_are_refused(tmp_path: Path) -> None:
    nifti = _series(tmp_path / "in")
    write_segments(tmp_path / "m.nii.gz", [Segment(chosen_mask(nifti))], nifti)
    assert "not read from DICOM" in _refusal(tmp_path, read_image(tmp_path / "m.nii.gz"))
    ds = header(None, SOPClassUID=SecondaryCaptureImageStorage, **STUDY)
    plain = read_dicom(save(tmp_path / "sc.dcm", ds, stored_slice(0)))
    assert "where it lies in the patient; save it as .nii.gz" in _refusal(tmp_path, plain)


@pytest.mark.parametrize("word", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_source_that_lacks_what_is_referred_to_is_refused(tmp_path: Path, word: str) -> None:
    volume = read_series(series(tmp_path / "in", **(STUDY | {word: None})), "x")
    assert f"lack {word}" in _refusal(tmp_path, volume)


def test_values_that_highdicom_refuses_are_not_quoted(tmp_path: Path) -> None:
    volume = _series(tmp_path / "in", PatientSex="DOE")
    sentence = _refusal(tmp_path, volume)
    assert "(ValueError); save it as .nii.gz" in sentence
    assert "DOE" not in sentence


def test_source_files_that_changed_or_went_are_noticed(tmp_path: Path) -> None:
    volume = _series(tmp_path / "in")
    moved = replace(volume, frames=volume.frames[::-1])
    assert "have changed" in _refusal(tmp_path, moved)
    last = volume.frames[-1].file
    last.write_bytes(last.read_bytes()[:200])
    assert "have changed" in _refusal(tmp_path, volume)
    last.unlink()
    assert "no longer there" in _refusal(tmp_path, volume)


def test_a_file_that_ends_its_reader_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too little memory for the child: it dies as a decoder that crashes does.
    volume = _series(tmp_path / "in")
    monkeypatch.setattr("napari_medreasoner.imaging.writers.seg.parent._MEMORY", 2**20)
    assert "could not be made" in _refusal(tmp_path, volume)
