"""DICOM images opened: what they claim of their pixels is checked before any are read.

Standard: DICOM PS3.3 C.7.6.3 (image pixel) and PS3.10 (file format).
"""

from __future__ import annotations

import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from napari_medreasoner.core.errors import ReadError

__all__ = [
    "GREYS",
    "MAX_BYTES",
    "PALETTE",
    "PIXELS",
    "forget_pixels",
    "frames_of",
    "open_header",
    "open_image",
    "reported",
]

# pydicom logs what it finds odd with the values it found, and those can be a patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

MAX_BYTES: Final = 2**31
"""Largest pixel data read: what the header claims is checked before anything is allocated."""

_READ_LATER: Final = 2**16
"""Elements of more bytes than this are read when asked for: pixels, in practice."""

_COLOURS: Final = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
GREYS: Final = {"MONOCHROME1", "MONOCHROME2"}
PALETTE: Final = "PALETTE COLOR"
PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_NOT_IMAGES: Final = {
    "1.2.840.10008.1.3.10": "a directory of other files",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose",
}


@contextmanager
def reported(name: str) -> Iterator[None]:
    """Turn every failure of pydicom and its codecs to a `ReadError`, and silence warnings.

    Neither the message nor the traceback shows what pydicom said, as it quotes values that
    can be a patient's.

    Parameters
    ----------
    name : str
        File or folder name for the message.

    Raises
    ------
    ReadError
        For anything but a request to stop.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ReadError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise ReadError(f"{name} does not fit into memory; close other images first.") from None
    except BaseException as error:  # noqa: BLE001 - see below
        # pydicom raises dozens of types on damaged files, and codecs written in Rust panic with
        # a BaseException.
        raise ReadError(
            f"{name} cannot be read as DICOM ({type(error).__name__}); the file is damaged or of "
            "a rare kind."
        ) from None


def open_header(path: Path) -> Dataset:
    """Everything of a DICOM image before its pixels; call inside `reported`.

    Raises
    ------
    ReadError
        When it is no DICOM file, holds no image, or claims an implausible size.
    """
    _check_file(path)
    header = dcmread(path, stop_before_pixels=True)
    _check_claims(header, path.name)
    return header


def open_image(path: Path) -> Dataset:
    """A DICOM image whose pixels are read, still encoded, when they are asked for.

    So the headers of a series can be judged before any of its pixels are in memory, and no
    file is parsed twice. Call inside `reported`.

    Raises
    ------
    ReadError
        As `open_header`.
    """
    # What is deflated as a whole has no places in the file to come back to.
    later = None if _check_file(path) else _READ_LATER
    image = dcmread(path, defer_size=later)
    if "Rows" not in image:
        # pydicom forgets all that it read of a file which ends within compressed pixels.
        open_header(path)
        raise ReadError(f"{path.name} ends before its pixels do; get another copy of it.")
    _check_claims(image, path.name)
    return image


def forget_pixels(image: Dataset) -> None:
    """Let go of encoded pixels once they are decoded, so that a series is not held twice."""
    for keyword in PIXELS:
        image.pop(keyword, None)


def _check_file(path: Path) -> bool:
    """Refuse what is too large or not DICOM; whether the file is deflated as a whole."""
    if path.stat().st_size > MAX_BYTES:
        raise ReadError(f"{path.name} is larger than 2 GiB; export fewer frames to a file.")
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            raise ReadError(
                f"{path.name} does not carry the mark of a DICOM file; export it anew as DICOM "
                "Part 10."
            )
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    _check_inflated(path, int(meta.FileMetaInformationGroupLength))
    return True


def _check_inflated(path: Path, meta_size: int) -> None:
    """Refuse a deflated file that grows beyond the limit: pydicom inflates it in one go."""
    with path.open("rb") as stream:
        # Preamble and mark, the 12 bytes of the group length itself, then what it counts.
        stream.seek(132 + 12 + meta_size)
        size = _inflated_size(stream)
    if size > MAX_BYTES:
        raise ReadError(f"{path.name} inflates to more than 2 GiB; export fewer frames to a file.")


def _inflated_size(stream: BinaryIO) -> int:
    """Bytes that a deflated stream grows to; stops counting beyond the limit."""
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    rest = stream.read(2**20)
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, 2**24))
        if size > MAX_BYTES:
            break
        rest = inflater.unconsumed_tail or stream.read(2**20)
    return size


def frames_of(header: Dataset) -> int:
    """Number of frames the header claims; 1 when it says nothing."""
    return int(header.get("NumberOfFrames") or 1)


def _check_claims(header: Dataset, name: str) -> None:
    """Refuse what is no image, or whose size is implausible."""
    kind = _NOT_IMAGES.get(
        str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID"))
    )
    if kind:
        raise ReadError(f"{name} holds {kind}, not an image; choose another file.")
    if not header.get("Rows") or not header.get("Columns"):
        raise ReadError(f"{name} is a DICOM file without an image; choose another file.")
    colour = str(header.get("PhotometricInterpretation", ""))
    samples = int(header.get("SamplesPerPixel") or 1)
    if (colour in _COLOURS and samples != 3) or (colour in GREYS | {PALETTE} and samples != 1):
        raise ReadError(f"{name} contradicts itself about its colours; the file is damaged.")
    if colour not in _COLOURS | GREYS | {PALETTE}:
        raise ReadError(
            f"{name} stores its colours in a way that is not read; export it as RGB or grey."
        )
    sizes = (int(header.Rows), int(header.Columns), frames_of(header))
    bits = int(header.get("BitsAllocated") or 0)
    if min(*sizes, bits) < 1 or math.prod(sizes) * samples * math.ceil(bits / 8) > MAX_BYTES:
        raise ReadError(
            f"{name} claims {sizes[2]} frames of {sizes[0]} x {sizes[1]} pixels; that is more "
            "than is read."
        )
