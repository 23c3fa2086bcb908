import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, FileDataset
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders import RLELosslessDecoder
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

import napari_medreasoner.imaging.dicom_pixels as pixels
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import Volume, read_image, write_mask
from napari_medreasoner.imaging.dicom import (
    find_series,
    is_dicom,
    read_dicom,
    read_series,
    read_slices,
)

ROWS, COLUMNS, COUNT = 6, 5, 4
SPACING = (1.25, 0.75)
STEP = 2.5
ANGLE = np.deg2rad(25)
AXIAL = (1, 0, 0, 0, 1, 0)
OBLIQUE = (1, 0, 0, 0, float(np.cos(ANGLE)), float(np.sin(ANGLE)))
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL_NEGATIVE = (-1, 0, 0, 0, 0, -1)
PATIENT = "Doe^Jane"


def normal_of(orientation: Any) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def header(position: Any, orientation: Any = AXIAL, **tags: Any) -> FileDataset:
    """A CT slice without pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.PatientName = PATIENT
    ds.PatientID = "4711"
    ds.Modality = "CT"
    ds.SeriesInstanceUID = "1.2.3"
    ds.FrameOfReferenceUID = "1.2.4"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = ROWS, COLUMNS, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    if position is not None:
        ds.ImagePositionPatient = [float(f"{x:.10g}") for x in position]
        ds.ImageOrientationPatient = [float(f"{x:.12g}") for x in orientation]
        ds.PixelSpacing = list(SPACING)
        ds.SliceThickness = 3.0
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def save(path: Path, ds: FileDataset, stored: np.ndarray) -> Path:
    ds.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    ds["PixelData"].VR = "OB" if stored.itemsize == 1 else "OW"
    ds.save_as(path, enforce_file_format=True)
    return path


def stored_slice(number: int) -> np.ndarray:
    """Values that occur but once in a series."""
    first = number * ROWS * COLUMNS - 100
    return np.arange(first, first + ROWS * COLUMNS, dtype=np.int16).reshape(ROWS, COLUMNS)


def series(folder: Path, orientation: Any = AXIAL, offsets: Any = None, **tags: Any) -> list[Path]:
    """One file for each offset (mm, of three numbers or along the normal)."""
    folder.mkdir(exist_ok=True)
    corner = np.array((-20.5, 12.25, 7.0))
    offsets = np.arange(COUNT) * STEP if offsets is None else offsets
    files = []
    for number, offset in enumerate(offsets):
        place = corner + (
            np.ones(1) * offset if np.ndim(offset) else offset * normal_of(orientation)
        )
        own = {
            key: value[number] if isinstance(value, tuple) else value for key, value in tags.items()
        }
        files.append(
            save(folder / f"{number}.dcm", header(place, orientation, **own), stored_slice(number))
        )
    return files


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
    write_mask(tmp_path / "mask.nii.gz", mask, volume)
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
    write_mask(tmp_path / "mask.nii", volume.array > -90, volume)


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
        slices = read_slices(files, "head")
        assert [volume.array.shape for volume in slices] == [(ROWS, COLUMNS)] * 4
        assert slices[0].name == "head 1"


def test_a_series_of_different_sizes_is_refused(tmp_path: Path) -> None:
    files = series(tmp_path / "in")
    save(files[1], header((0, 0, 1), Rows=3), stored_slice(1)[:3])
    with pytest.raises(ReadError, match="3 x 5 and 6 x 5"):
        read_series(files, "head")
    with pytest.raises(ReadError, match="no slices"):
        read_series([], "head")


def test_monochrome1_keeps_its_values(tmp_path: Path) -> None:
    ds = header(None, PhotometricInterpretation="MONOCHROME1", Modality="CR", PixelSpacing=[2, 1])
    volume = read_dicom(save(tmp_path / "chest.dcm", ds, stored_slice(0)))
    assert volume.inverted
    assert volume.modality == "X-ray"
    assert volume.name == "chest"
    assert not volume.grid.known
    assert volume.grid.spacing == (1.0, 2.0, 1.0)
    assert np.array_equal(volume.array, stored_slice(0))


def test_signed_twelve_bits_in_sixteen(tmp_path: Path) -> None:
    ds = header((0, 0, 0), BitsStored=12, HighBit=11)
    unclean = (stored_slice(0).astype(np.uint16) & 0x0FFF).astype(np.int16)
    volume = read_dicom(save(tmp_path / "a.dcm", ds, unclean))
    assert np.array_equal(volume.array, stored_slice(0))


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [
        (None, None, np.uint16),
        (1, -1024, np.int16),
        (1, 40_000, np.uint16),
        (1, -50_000, np.int32),
        (2, 0, np.uint16),
        (0.5, 0, np.float32),
    ],
)
def test_intensities_are_whole_where_they_can_be(
    tmp_path: Path, slope: Any, intercept: Any, kind: Any
) -> None:
    ds = header((0, 0, 0), PixelRepresentation=0)
    if slope is not None:
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    stored = np.arange(30, dtype=np.uint16).reshape(ROWS, COLUMNS)
    volume = read_dicom(save(tmp_path / "a.dcm", ds, stored))
    assert volume.array.dtype == kind
    assert np.array_equal(volume.array, stored * float(slope or 1) + float(intercept or 0))


@pytest.mark.parametrize(
    ("tags", "window"),
    [
        ({"WindowCenter": [40, 600], "WindowWidth": [400, 1500]}, (-160.0, 239.0)),
        (
            {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
            (-160.0, 240.0),
        ),
        ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}, (-160.0, 240.0)),
        ({"WindowCenter": 40, "WindowWidth": 0}, None),
        ({"WindowCenter": 40}, None),
    ],
)
def test_the_window_the_file_asks_for(tmp_path: Path, tags: Any, window: Any) -> None:
    volume = read_dicom(save(tmp_path / "a.dcm", header((0, 0, 0), **tags), stored_slice(0)))
    assert volume.window == window
    assert any("SIGMOID" in note for note in volume.warnings) == ("SIGMOID" in tags.values())


def enhanced(count: int = 3, **content: Any) -> FileDataset:
    """An Enhanced CT whose frames are stored from the top down, each with its own rescale."""
    ds = header(None)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = count
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), 9.0
    plane.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for number in range(count):
        group, position, rescale, frame, window = (Dataset() for _ in range(5))
        position.ImagePositionPatient = [1.0, 2.0, 30.0 - 2 * number]
        rescale.RescaleSlope, rescale.RescaleIntercept = number + 1, -1024 + number
        window.WindowCenter, window.WindowWidth = 40 + number, 400
        frame.StackID, frame.InStackPositionNumber = "1", number + 1
        for keyword, values in content.items():
            setattr(frame, keyword, values[number])
        group.PlanePositionSequence = [position]
        group.PixelValueTransformationSequence = [rescale]
        group.FrameVOILUTSequence = [window]
        group.FrameContentSequence = [frame]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    return ds


def enhanced_pixels(count: int = 3) -> np.ndarray:
    return np.stack([stored_slice(number) for number in range(count)])


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
    assert len(read_slices([path], "a")) == 3


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


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_of_either_planar_configuration(tmp_path: Path, planar: int) -> None:
    rgb = np.arange(90, dtype=np.uint8).reshape(ROWS, COLUMNS, 3)
    ds = header(None, SamplesPerPixel=3, PlanarConfiguration=planar, PixelRepresentation=0)
    ds.PhotometricInterpretation = "RGB"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    stored = rgb if planar == 0 else np.ascontiguousarray(rgb.transpose(2, 0, 1))
    volume = read_dicom(save(tmp_path / "a.dcm", ds, stored))
    assert np.array_equal(volume.array, rgb)


def test_sixteen_bit_colour_and_palette_become_eight_bit() -> None:
    for name in ("SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"):
        array = read_dicom(bundled(name)).array
        assert array.dtype == np.uint8
        assert array[5, 50].tolist() == [255, 0, 0]
    palette = read_dicom(bundled("examples_palette.dcm")).array
    assert palette.shape == (350, 800, 3)
    assert palette.max() == 255


def bundled(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_expb.dcm",
    ],
)
def test_every_transfer_syntax_gives_the_same_pixels(name: str) -> None:
    plain, other = read_dicom(bundled("MR_small.dcm")), read_dicom(bundled(name))
    assert np.array_equal(plain.array, other.array)
    assert other.array.dtype == np.dtype(np.int16)
    assert np.allclose(plain.grid.affine, other.grid.affine)


def test_deflated() -> None:
    assert read_dicom(bundled("image_dfl.dcm")).array.shape == (512, 512)


def outcome(path: Path) -> Volume | str:
    try:
        return read_dicom(path)
    except ReadError as refusal:
        return str(refusal)


def test_every_file_that_comes_with_pydicom_opens_or_is_refused() -> None:
    spec = importlib.util.find_spec("data_store")
    roots = [Path(pydicom.__file__).parent / "data"]
    roots += [Path(spec.origin).parent / "data"] if spec and spec.origin else []
    paths = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
    outcomes = {path: outcome(path) for path in paths}
    opened = [found for found in outcomes.values() if not isinstance(found, str)]
    assert all(volume.array.dtype.isnative for volume in opened)
    for path, refusal in outcomes.items():
        if isinstance(refusal, str):
            assert path.name in refusal
            assert refusal.endswith(".")
            assert "\n" not in refusal
    assert len(opened) >= 80
    for root in roots:
        assert all(info.slices >= len(info.files) >= 1 for info in find_series(root))


class Panic(BaseException):
    """As a codec written in Rust raises."""


@pytest.mark.parametrize("error", [Panic(PATIENT), RecursionError(PATIENT), ValueError(PATIENT)])
def test_every_failure_is_a_read_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pixels, "pixel_array", fail)
    path = save(tmp_path / "a.dcm", header((0, 0, 0)), stored_slice(0))
    with pytest.raises(ReadError, match=r"a\.dcm") as refusal:
        read_dicom(path)
    assert PATIENT not in str(refusal.value)
    assert refusal.value.__suppress_context__
    monkeypatch.setattr(
        pixels, "pixel_array", lambda *_, **__: (_ for _ in ()).throw(MemoryError())
    )
    with pytest.raises(ReadError, match="memory"):
        read_dicom(path)


def test_a_request_to_stop_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pixels, "pixel_array", stop)
    with pytest.raises(KeyboardInterrupt):
        read_dicom(save(tmp_path / "a.dcm", header((0, 0, 0)), stored_slice(0)))


def test_a_missing_codec_names_the_transfer_syntax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_PLUGINS", ())
    with pytest.raises(ReadError, match=r"MR_small_jp2klossless\.dcm .*JPEG 2000"):
        read_dicom(bundled("MR_small_jp2klossless.dcm"))


def test_run_lengths_are_decoded_by_pydicom_even_where_others_could(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: Any) -> bytes:
        raise Panic

    for label in ("gdcm", "pylibjpeg"):
        monkeypatch.setitem(RLELosslessDecoder._available, label, crash)
    assert "gdcm" in RLELosslessDecoder.available_plugins
    assert read_dicom(bundled("MR_small_RLE.dcm")).array.shape == (64, 64)
    assert pixels._plugins(RLELossless, "a") == ["pydicom"]
    assert "gdcm" not in pixels._plugins(JPEG2000Lossless, "a")


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Rows": 60_000, "Columns": 60_000}, "more than is read"),
        ({"NumberOfFrames": 2_000_000_000}, "more than is read"),
        ({"NumberOfFrames": -1}, "more than is read"),
        ({"Rows": 0}, "without an image"),
        ({"Rows": 7}, "damaged"),
        ({"BitsAllocated": 0}, "more than is read"),
        ({"SamplesPerPixel": 3}, "contradicts itself"),
        ({"PhotometricInterpretation": "HSV"}, "export it as RGB or grey"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "a segmentation"),
        ({"ImagePositionPatient": [1, 2]}, "3 finite numbers"),
    ],
)
def test_implausible_claims_are_refused(tmp_path: Path, tags: Any, reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        read_dicom(save(tmp_path / "a.dcm", header((0, 0, 0), **tags), stored_slice(0)))


def test_a_bomb_in_a_deflated_file_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = header((0, 0, 0), RedPaletteColorLookupTableData=bytes(3_000_000))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(tmp_path / "a.dcm", ds, stored_slice(0))
    assert np.array_equal(read_dicom(path).array, stored_slice(0))
    monkeypatch.setattr(pixels, "MAX_BYTES", 2_000_000)
    with pytest.raises(ReadError, match="inflates"):
        read_dicom(path)


def test_a_compressed_frame_that_claims_another_size_is_not_decoded(tmp_path: Path) -> None:
    for name, at in (
        ("MR_small_jp2klossless.dcm", b"\xff\x4f\xff\x51"),
        ("JPEGLSNearLossless_08.dcm", b"\xff\xf7"),
    ):
        data = bytearray(bundled(name).read_bytes())
        start = data.index(at) + (12 if at[1] == 0x4F else 5)
        data[start : start + 2] = b"\x70\x00"
        path = tmp_path / "a.dcm"
        path.write_bytes(data)
        with pytest.raises(ReadError, match="compressed frame of"):
            read_dicom(path)


@pytest.mark.parametrize("tail", [bytes(8), b"\0\0\0\1abcd", bytes(6)])
def test_a_jp2_box_without_length_does_not_hang(tmp_path: Path, tail: bytes) -> None:
    ds = header((0, 0, 0))
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([b"\0\0\0\x0cjP  \r\n\x87\n" + tail])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ReadError, match="compressed frame that is damaged"):
        read_dicom(tmp_path / "a.dcm")


def test_any_byte_may_be_damaged(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "a.dcm"
    for name in ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "CT_small.dcm"):
        whole = bundled(name).read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for at in rng.integers(132, len(data) if rng.random() < 0.5 else 2500, 4):
                data[at] = rng.integers(256)
            path.write_bytes(data[: rng.integers(200, len(data))] if rng.random() < 0.2 else data)
            found = outcome(path)
            assert not isinstance(found, str) or "a.dcm" in found


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
    monkeypatch.setattr("napari_medreasoner.imaging.dicom_folder.MAX_FILES", 3)
    with pytest.raises(ReadError, match="more than 3 files"):
        find_series(tmp_path)
