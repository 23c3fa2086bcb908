from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.pixels.decoders import RLELosslessDecoder
from pydicom.uid import (
    JPEG2000Lossless,
    RLELossless,
)

import napari_medreasoner.imaging.readers.dicom.decoding as decoding
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import read_sandboxed
from napari_medreasoner.imaging.readers.dicom.file import (
    read_dicom,
)
from tests.imaging.dicom_series import (
    COLUMNS,
    ROWS,
    Panic,
    bundled,
    header,
    save,
    stored_slice,
)


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


def test_a_missing_codec_names_the_transfer_syntax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_PLUGINS", ())
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
    assert decoding._plugins(RLELossless, "a") == ["pydicom"]
    assert "gdcm" not in decoding._plugins(JPEG2000Lossless, "a")


def test_a_colour_film_needs_little_more_memory_than_its_pixels() -> None:
    film = read_sandboxed(bundled("color3d_jpeg_baseline.dcm"), memory=600 * 2**20)
    assert film.array.shape == (120, 480, 640, 3)
    assert film.array.nbytes > 100 * 2**20
