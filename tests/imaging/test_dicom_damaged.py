from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
)

import napari_medreasoner.imaging.readers.dicom.decoding as decoding
import napari_medreasoner.imaging.readers.dicom.pixels as pixels
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import Volume
from napari_medreasoner.imaging.readers.dicom.file import (
    read_dicom,
)
from tests.imaging.dicom_series import (
    PATIENT,
    Panic,
    bundled,
    header,
    save,
    stored_slice,
)


def outcome(path: Path) -> Volume | str:
    try:
        return read_dicom(path)
    except ReadError as refusal:
        return str(refusal)


@pytest.mark.parametrize("error", [Panic(PATIENT), RecursionError(PATIENT), ValueError(PATIENT)])
def test_every_failure_is_a_read_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(decoding, "pixel_array", fail)
    path = save(tmp_path / "a.dcm", header((0, 0, 0)), stored_slice(0))
    with pytest.raises(ReadError, match=r"a\.dcm") as refusal:
        read_dicom(path)
    assert PATIENT not in str(refusal.value)
    assert refusal.value.__suppress_context__
    monkeypatch.setattr(
        decoding, "pixel_array", lambda *_, **__: (_ for _ in ()).throw(MemoryError())
    )
    with pytest.raises(ReadError, match="memory"):
        read_dicom(path)


def test_a_request_to_stop_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "pixel_array", stop)
    with pytest.raises(KeyboardInterrupt):
        read_dicom(save(tmp_path / "a.dcm", header((0, 0, 0)), stored_slice(0)))


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
