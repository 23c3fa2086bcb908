"""Pixels of one DICOM file: claims checked before decoding, codecs chosen, colour made RGB.

Standard: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT) and PS3.5 (transfer syntaxes).
"""

from __future__ import annotations

import logging
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.dicom.codestream import check_codestreams

__all__ = ["GREYS", "MAX_BYTES", "decoded", "frames_of", "open_header", "open_whole", "reported"]

# pydicom logs what it finds odd with the values it found, and those can be a patient's.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

MAX_BYTES: Final = 2**31
"""Largest pixel data read: what the header claims is checked before anything is allocated."""

_BOMB_BYTES: Final = 2**26
_BOMB_RATIO: Final = 32
"""A file may inflate to the first of these, and beyond it by the second: only bombs do more."""

_CHUNK: Final = 2**18

_PLUGINS: Final = ("pyjpegls", "pylibjpeg", "pillow")
"""Codecs in the order they are tried. Never gdcm: damaged files make it abort the process."""

_COLOURS: Final = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
GREYS: Final = {"MONOCHROME1", "MONOCHROME2"}
_PALETTE: Final = "PALETTE COLOR"

_NOT_IMAGES: Final = {
    "1.2.840.10008.1.3.10": "a directory of other files",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose",
}

Scaling = tuple[float, float]
"""Rescale slope and intercept: intensity = stored * slope + intercept."""


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
    header = dcmread(_source(path), stop_before_pixels=True)
    _check_claims(header, path.name)
    return header


def open_whole(path: Path) -> Dataset:
    """A DICOM image with its pixels, still encoded; call inside `reported`.

    Raises
    ------
    ReadError
        As `open_header`.
    """
    image = dcmread(_source(path))
    _check_claims(image, path.name)
    return image


def _source(path: Path) -> Path | BinaryIO:
    """What pydicom may read: the file, or its content where it is deflated as a whole."""
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
            return path
        # The group length can lie about where the meta information ends.
        read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        return _inflated(stream, meta, path)


def _inflated(stream: BinaryIO, meta: FileMetaDataset, path: Path) -> BinaryIO:
    """The same image not deflated: pydicom would inflate it in one go, however large it grows."""
    limit = min(MAX_BYTES, max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head, whole = DicomBytesIO(), BytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    whole.write(bytes(128) + b"DICM" + head.getvalue())
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    rest = stream.read(_CHUNK)
    while rest and not inflater.eof:
        whole.write(inflater.decompress(rest, _CHUNK))
        if whole.tell() > limit:
            raise ReadError(
                f"{path.name} inflates to more than {limit >> 20} MiB; export it uncompressed, or "
                "fewer frames of it."
            )
        rest = inflater.unconsumed_tail or stream.read(_CHUNK)
    whole.seek(0)
    return whole


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
    if (colour in _COLOURS and samples != 3) or (colour in GREYS | {_PALETTE} and samples != 1):
        raise ReadError(f"{name} contradicts itself about its colours; the file is damaged.")
    if colour not in _COLOURS | GREYS | {_PALETTE}:
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


def _plugins(syntax: UID, name: str) -> list[str]:
    """Codecs to try for a transfer syntax; one empty name where none is needed.

    Raises
    ------
    ReadError
        When none is installed; names the transfer syntax.
    """
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ReadError(
            f"{name} is compressed in a way that is not read ({_label(syntax)}); export it "
            "uncompressed."
        ) from None
    if not syntax.is_encapsulated:
        return [""]
    # pydicom's own is the only run-length decoder that survives damaged files.
    known = ("pydicom",) if syntax == RLELossless else _PLUGINS
    usable = [plugin for plugin in known if plugin in decoder.available_plugins]
    if not usable:
        raise ReadError(
            f"{name} is compressed as {_label(syntax)}, for which no decoder is installed; "
            "export it uncompressed."
        )
    return usable


def decoded(ds: Dataset, name: str) -> NDArray[Any]:
    """Stored values of all frames; colour as RGB.

    Parameters
    ----------
    ds : Dataset
        From `open_whole`.
    name : str
        File name for messages.

    Returns
    -------
    ndarray, shape (frame, row, column) or (frame, row, column, 3)
        Grey as stored (any dtype, native byte order), before rescale; RGB as uint8.

    Raises
    ------
    ReadError
        When there are no pixels, no codec, or fewer pixels than claimed.
    """
    shape = (frames_of(ds), int(ds.Rows), int(ds.Columns))
    if not any(word in ds for word in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ReadError(f"{name} is a DICOM file without pixels; choose another file.")
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise ReadError(f"{name} does not say how its pixels are stored; export it anew.")
    array = _first_success(ds, _plugins(syntax, name), name)
    colour = str(ds.PhotometricInterpretation)
    if colour == _PALETTE:
        array = apply_color_lut(array, ds)[..., :3]
    elif "ModalityLUTSequence" in ds and colour in GREYS:
        array = apply_modality_lut(array, ds)
    wanted = shape if colour in GREYS else (*shape, 3)
    if array.size != math.prod(wanted):
        raise ReadError(f"{name} holds other pixels than its header claims; the file is damaged.")
    array = array.reshape(wanted)
    if colour in GREYS:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    bits = 8 * array.itemsize if colour == _PALETTE else int(ds.BitsStored)
    return _eight_bit(array, bits)


def _first_success(ds: Dataset, plugins: Sequence[str], name: str) -> NDArray[Any]:
    """The pixels from the first codec that can; the last one's failure when none can."""
    for plugin in plugins[:-1]:
        try:
            return _decoded_by(ds, plugin, name)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - each codec has its own errors; the next may do
            continue
    return _decoded_by(ds, plugins[-1], name)


def _decoded_by(ds: Dataset, plugin: str, name: str) -> NDArray[Any]:
    if plugin and plugin != "pydicom":
        check_codestreams(ds, name)
    try:
        array: NDArray[Any] = pixel_array(ds, decoding_plugin=plugin)
    except RuntimeError:
        # What pydicom raises when a codec fails, for a damaged stream and for a rare variant.
        raise ReadError(
            f"{name} cannot be decoded as {_label(ds.file_meta.TransferSyntaxUID)}; the file is "
            "damaged, or must be exported uncompressed."
        ) from None
    return array


def _label(syntax: UID) -> str:
    """Name of a transfer syntax; not the file's own text where that is none of the standard's."""
    return syntax.name if syntax.name != syntax else "an unknown transfer syntax"


def _eight_bit(array: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Colours of any depth with 0 black and full scale white."""
    if bits == 8:
        return array.astype(np.uint8, copy=False)
    if bits > 8:
        return np.asarray(array >> (bits - 8)).astype(np.uint8)
    return np.asarray(array.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
