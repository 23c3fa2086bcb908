"""Every file that comes with pydicom, against SimpleITK as a second reader."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import Volume
from napari_medreasoner.imaging.readers.dicom.file import find_series, read_dicom
from napari_medreasoner.imaging.readers.kinds import is_dicom
from tests.imaging.dicom_series import bundled

Outcomes = dict[Path, Volume | str]
Arrays = dict[Path, np.ndarray]

# Damaged files can crash SimpleITK, so it reads in a process of its own.
SECOND_READER = """
import sys
import numpy
import SimpleITK
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
for path in sys.argv[2:]:
    try:
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
    except RuntimeError:
        continue
    numpy.save(f"{sys.argv[1]}/{path.replace('/', '_')}.npy", array)
"""


def roots() -> list[Path]:
    spec = importlib.util.find_spec("data_store")
    assert spec is not None
    assert spec.origin is not None
    return [Path(pydicom.__file__).parent / "data", Path(spec.origin).parent / "data"]


@pytest.fixture(scope="module")
def corpus() -> Outcomes:
    """What we read of every file, DICOM or not: an image, or the refusal."""
    paths = sorted(path for root in roots() for path in root.rglob("*") if path.is_file())
    return {path: outcome(path) for path in paths}


def outcome(path: Path) -> Volume | str:
    try:
        return read_dicom(path)
    except ReadError as refusal:
        return str(refusal)


@pytest.fixture(scope="module")
def theirs(corpus: Outcomes, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """What SimpleITK reads of every DICOM file."""
    folder = tmp_path_factory.mktemp("second")
    paths = [path for path in corpus if is_dicom(path)]
    command = [sys.executable, "-c", SECOND_READER, str(folder), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {path: folder / f"{str(path).replace('/', '_')}.npy" for path in paths}
    return {path: np.load(file) for path, file in found.items() if file.exists()}


def in_file_order(volume: Volume) -> np.ndarray:
    """Shape (frame, row, column[, 3]), as the file has its frames."""
    assert volume.source is not None
    colours = (3,) if volume.is_rgb else ()
    array = volume.array.reshape((*volume.grid.shape, *colours))
    parts = [array[..., i] for i in range(3)] if colours else [array]
    restored = [volume.source.restore(part).swapaxes(0, 2) for part in parts]
    stacked = np.stack(restored, axis=-1) if colours else restored[0]
    ordered = np.empty_like(stacked)
    ordered[[frame.frame for frame in volume.frames]] = stacked
    return ordered


def inverted(path: Path, ours: np.ndarray, other: np.ndarray) -> bool:
    """MONOCHROME1: SimpleITK turns dark to bright, so that the two add up to one number."""
    total = ours.astype(np.float64) + other
    return bool(np.ptp(total) <= 1e-3 * np.abs(total).max())


def single_precision(path: Path, ours: np.ndarray, other: np.ndarray) -> bool:
    """A slope that is not whole: float32 here, float64 there."""
    return ours.dtype == np.float32 and np.allclose(ours, other, rtol=1e-6)


def deep_colour(path: Path, ours: np.ndarray, other: np.ndarray) -> bool:
    """Colours of more than eight bits, of which the upper eight are kept here."""
    return np.array_equal(ours, other >> (8 * other.itemsize - 8))


def stored(path: Path, ours: np.ndarray, other: np.ndarray) -> bool:
    """A modality LUT, which SimpleITK leaves out."""
    return np.array_equal(np.squeeze(other), pydicom.dcmread(path).pixel_array)


def misread(path: Path, ours: np.ndarray, other: np.ndarray) -> bool:
    """SimpleITK is wrong: the same picture in plain encoding agrees with ours."""
    plain = path.name.replace("_rle", "")
    return np.array_equal(in_file_order(read_dicom(bundled(plain))), ours)


EXPLAINED: dict[Callable[[Path, np.ndarray, np.ndarray], bool], set[str]] = {
    inverted: {
        "6154",
        "6247",
        "6278",
        *(f"RG{n}_{kind}.dcm" for n in (1, 3) for kind in ("J2KI", "J2KR", "UNCI", "UNCR")),
    },
    single_precision: {f"MR2_{kind}.dcm" for kind in ("J2KI", "J2KR", "UNCI", "UNCR")},
    deep_colour: {
        "gdcm-US-ALOKA-16.dcm",
        "gdcm-US-ALOKA-16_big.dcm",
        *(
            f"SC_rgb{order}_{bits}bit{frames}.dcm"
            for order in ("", "_expb")
            for bits in (16, 32)
            for frames in ("", "_2frame")
        ),
    },
    misread: {
        *(f"SC_rgb_rle_{bits}bit{frames}.dcm" for bits in (16, 32) for frames in ("", "_2frame")),
    },
    stored: {"mlut_18.dcm"},
}
"""Why pixels differ from SimpleITK's, and in which files."""

NOT_IMAGES = {
    "badVR.dcm",
    "liver.dcm",
    "liver_1frame.dcm",
    "liver_expb.dcm",
    "liver_expb_1frame.dcm",
    "rtdose.dcm",
    "rtdose_expb.dcm",
    "rtdose_rle.dcm",
}
"""Segmentations and radiotherapy doses: refused by name, though SimpleITK opens them."""


def test_every_file_opens_or_is_refused_by_name(corpus: Outcomes) -> None:
    opened = [found for found in corpus.values() if isinstance(found, Volume)]
    assert all(volume.array.dtype.isnative for volume in opened)
    for path, refusal in corpus.items():
        if isinstance(refusal, str):
            assert path.name in refusal
            assert refusal.endswith(".")
            assert "\n" not in refusal
    assert len(opened) == 158
    for root in roots():
        assert all(info.slices >= len(info.files) >= 1 for info in find_series(root))


def test_every_image_that_a_second_reader_opens_opens(corpus: Outcomes, theirs: Arrays) -> None:
    opened = {path for path, found in corpus.items() if isinstance(found, Volume)}
    assert {path.name for path in theirs.keys() - opened} == NOT_IMAGES
    assert not opened - theirs.keys()


def test_pixels_agree_with_a_second_reader_or_the_difference_is_explained(
    corpus: Outcomes,
    theirs: Arrays,
) -> None:
    differing: dict[str, set[str]] = {reason.__name__: set() for reason in EXPLAINED}
    unexplained = set()
    for path, other in theirs.items():
        volume = corpus[path]
        if isinstance(volume, str):
            continue
        ours = in_file_order(volume)
        other = other.reshape(ours.shape)
        if np.array_equal(ours, other):
            continue
        for reason, names in EXPLAINED.items():
            if path.name in names and reason(path, ours, other):
                differing[reason.__name__].add(path.name)
                break
        else:
            unexplained.add(path.name)
    assert not unexplained
    assert differing == {reason.__name__: names for reason, names in EXPLAINED.items()}
