"""JPEG of the kinds that Pillow cannot decode: lossless, and of more than eight bits."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import SimpleITK
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

import napari_medreasoner.imaging.readers.dicom.decoding as decoding
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import Volume
from napari_medreasoner.imaging.readers.dicom.codestream import claimed_size
from napari_medreasoner.imaging.readers.dicom.file import read_dicom, read_slice
from tests.imaging.dicom_series import bundled, header

ROWS, COLUMNS = 24, 17


def picture(bits: int, number: int = 0, colours: tuple[int, ...] = ()) -> np.ndarray:
    """Noise on a ramp over the whole range, as scanners give."""
    rng = np.random.default_rng(number)
    shape = (ROWS, COLUMNS, *colours)
    ramp = np.linspace(0, 2**bits - 1, int(np.prod(shape))).reshape(shape)
    noisy = np.clip(ramp + rng.normal(0, 2**bits / 50, shape), 0, 2**bits - 1)
    return noisy.astype(np.uint8 if bits <= 8 else np.uint16)


def lossless(image: np.ndarray, bits: int, predictor: int = 1, space: str | None = None) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(
            image,
            lossless=True,
            predictor=predictor,
            bitspersample=bits,
            colorspace=space,
            outcolorspace=space,
        )
    )


def write(path: Path, streams: list[bytes], syntax: UID, **tags: Any) -> Path:
    tags = {"PixelRepresentation": 0, "Modality": "NM", **tags}
    ds = header(None, Rows=ROWS, Columns=COLUMNS, **tags)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.HighBit = ds.BitsStored - 1
    if len(streams) > 1:
        ds.NumberOfFrames = len(streams)
    ds.PixelData = encapsulate(streams)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path, enforce_file_format=True)
    return path


def second_reader(path: Path) -> np.ndarray:
    array: np.ndarray = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return np.squeeze(array)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_gives_back_every_value(tmp_path: Path, bits: int, predictor: int) -> None:
    syntax = JPEGLosslessSV1 if predictor == 1 else JPEGLossless
    image = picture(bits)
    tags = {"BitsAllocated": 8 * image.itemsize, "BitsStored": bits}
    path = write(tmp_path / "a.dcm", [lossless(image, bits, predictor)], syntax, **tags)
    found = read_dicom(path).array
    assert found.dtype == image.dtype
    assert np.array_equal(found, image)
    assert np.array_equal(second_reader(path), image)


@pytest.mark.parametrize("bits", [12, 16])
def test_lossless_values_with_a_sign(tmp_path: Path, bits: int) -> None:
    coded = picture(bits)
    tags = {"BitsStored": bits, "PixelRepresentation": 1, "RescaleIntercept": -24}
    path = write(tmp_path / "a.dcm", [lossless(coded, bits)], JPEGLosslessSV1, **tags)
    signed = np.where(coded >= 2 ** (bits - 1), coded.astype(np.int64) - 2**bits, coded)
    found = read_dicom(path).array
    assert np.array_equal(found, signed - 24)
    assert np.array_equal(second_reader(path), signed - 24)


def test_a_byte_in_two_is_given_room(tmp_path: Path) -> None:
    image = picture(8)
    tags = {"BitsAllocated": 16, "BitsStored": 8}
    path = write(tmp_path / "a.dcm", [lossless(image, 8)], JPEGLossless, **tags)
    assert np.array_equal(read_dicom(path).array, image)
    lossy = bytes(imagecodecs.jpeg8_encode(image, level=95))
    path = write(tmp_path / "b.dcm", [lossy], JPEGBaseline8Bit, **tags)
    found = read_dicom(path).array
    assert found.dtype == np.uint16
    assert np.array_equal(found, imagecodecs.jpeg8_decode(lossy))


def test_frames_of_a_film(tmp_path: Path) -> None:
    images = [picture(12, number) for number in range(3)]
    streams = [lossless(image, 12) for image in images]
    path = write(tmp_path / "a.dcm", streams, JPEGLosslessSV1, BitsStored=12)
    assert np.array_equal(read_dicom(path).array, images)
    assert np.array_equal(second_reader(path), images)
    # One frame is decoded by itself, whatever the others hold.
    path = write(tmp_path / "b.dcm", [b"\0\0", *streams[1:]], JPEGLosslessSV1, BitsStored=12)
    assert np.array_equal(read_slice(path, 2, "b").array, images[2])
    with pytest.raises(ReadError, match="damaged"):
        read_slice(path, 0, "b")


@pytest.mark.parametrize("space", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("planar", [0, 1])
def test_lossless_colour(tmp_path: Path, space: str, planar: int) -> None:
    image = picture(8, colours=(3,))
    tags = {"BitsAllocated": 8, "BitsStored": 8, "SamplesPerPixel": 3}
    tags |= {"PhotometricInterpretation": space, "PlanarConfiguration": planar}
    stream = lossless(image, 8, space="RGB" if space == "RGB" else "YCBCR")
    path = write(tmp_path / "a.dcm", [stream], JPEGLosslessSV1, **tags)
    expected = image if space == "RGB" else convert_color_space(image, "YBR_FULL", "RGB")
    assert np.array_equal(read_dicom(path).array, expected)


def test_twelve_bits_that_lose_a_little(tmp_path: Path) -> None:
    image = picture(12)
    stream = bytes(imagecodecs.jpeg8_encode(image, level=98, bitspersample=12))
    path = write(tmp_path / "a.dcm", [stream], JPEGExtended12Bit, BitsStored=12)
    found = read_dicom(path).array.astype(int)
    assert np.abs(found - image).max() < 40
    assert np.abs(found - second_reader(path)).max() <= 1


def without_size(stream: bytes) -> bytes:
    """A byte where a marker should be, that libjpeg would step over."""
    return stream[:2] + b"\0" + stream[2:]


def resized(stream: bytes) -> bytes:
    at = stream.index(b"\xff\xc3")
    return stream[: at + 5] + b"\x70\x00" + stream[at + 7 :]


STREAM = lossless(picture(12), 12)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "cut in the middle": (STREAM[: len(STREAM) // 2], "damaged; export it anew"),
    "without its end": (STREAM[:-2], "damaged; export it anew"),
    "empty": (b"\0\0", "damaged; export it anew"),
    "no size where it should be": (without_size(STREAM), "damaged; export it anew"),
    "another size": (resized(STREAM), "frame of 28672 x 17 pixels where its header says 24 x 17"),
    "a size said elsewhere": (
        STREAM[:2] + b"\xff\xe1\x00\x30\xff\x4f\xff\x51" + bytes(42) + resized(STREAM)[2:],
        "frame of 28672 x 17",
    ),
    "more bits than there is room for": (lossless(picture(16), 16), "cannot be decoded"),
    "colours": (lossless(picture(8, colours=(3,)), 8, space="RGB"), "cannot be decoded"),
    "no code": (STREAM[: STREAM.index(b"\xff\xda")] + b"\xff\xd9", "cannot be decoded"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_streams_are_refused(tmp_path: Path, case: str) -> None:
    stream, reason = DAMAGED[case]
    room = {"BitsAllocated": 8, "BitsStored": 8} if "room" in case else {"BitsStored": 12}
    path = write(tmp_path / "a.dcm", [stream], JPEGLosslessSV1, **room)
    with pytest.raises(ReadError, match=reason):
        read_dicom(path)


def test_padding_is_no_damage(tmp_path: Path) -> None:
    for tail in (b"\0", b"\xff", b"\0\0\0"):
        path = write(tmp_path / "a.dcm", [STREAM + tail], JPEGLosslessSV1, BitsStored=12)
        assert np.array_equal(read_dicom(path).array, picture(12))


def test_any_byte_of_a_stream_may_be_damaged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    opened = 0
    for _ in range(150):
        data = bytearray(STREAM)
        for at in rng.integers(2, len(data), 3):
            data[at] = rng.integers(256)
        path = write(tmp_path / "a.dcm", [bytes(data)], JPEGLosslessSV1, BitsStored=12)
        try:
            found = read_dicom(path)
        except ReadError as refusal:
            assert "a.dcm" in str(refusal)  # noqa: PT017 - either outcome will do
            continue
        assert isinstance(found, Volume)
        assert found.array.shape == (ROWS, COLUMNS)
        opened += 1
    assert opened < 150


def test_no_decoder_that_crashes_is_tried() -> None:
    assert decoding._plugins(JPEGLosslessSV1, "a") == ["imagecodecs"]
    assert decoding._plugins(JPEGLossless, "a") == ["imagecodecs"]
    assert decoding._plugins(JPEGExtended12Bit, "a") == ["pillow", "imagecodecs"]


def test_a_missing_decoder_names_the_transfer_syntax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_PLUGINS", ("pillow",))
    with pytest.raises(ReadError, match=r"JPEG Lossless.*no decoder is installed"):
        read_dicom(bundled("JPEG-LL.dcm"))


def test_the_size_is_the_codestreams_own() -> None:
    assert claimed_size(STREAM) == (ROWS, COLUMNS)
    assert claimed_size(b"\xff\x4f\xff\x51") is None
    assert claimed_size(bytes(64) + b"\xff\x4f\xff\x51" + bytes(64)) is None
    assert claimed_size(b"") is None
