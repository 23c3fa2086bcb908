"""Pixels of one DICOM image: codecs chosen, codestreams checked, colour made RGB.

Standard: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT) and PS3.5 (transfer syntaxes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.uid import UID, RLELossless

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.dicom import jpeg
from napari_medreasoner.imaging.readers.dicom.codestream import check_codestreams
from napari_medreasoner.imaging.readers.dicom.pixels import GREYS, PALETTE, PIXELS, frames_of

__all__ = ["decoded"]

jpeg.make_known()

_PLUGINS: Final = ("pyjpegls", "pylibjpeg", "pillow", jpeg.LABEL)
"""Codecs in the order they are tried. Never gdcm: damaged files make it abort the process."""


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


def decoded(ds: Dataset, name: str, frame: int | None = None) -> NDArray[Any]:
    """Stored values of all frames, or of one; colour as RGB.

    Parameters
    ----------
    ds : Dataset
        From `open_image`.
    name : str
        File name for messages.
    frame : int, optional
        The only frame to decode, from 0.

    Returns
    -------
    ndarray, shape (frame, row, column) or (frame, row, column, 3)
        Grey as stored (any dtype, native byte order), before rescale; RGB as uint8.

    Raises
    ------
    ReadError
        When there are no pixels, no codec, or fewer pixels than claimed.
    """
    shape = (frames_of(ds) if frame is None else 1, int(ds.Rows), int(ds.Columns))
    if not any(word in ds for word in PIXELS):
        raise ReadError(f"{name} is a DICOM file without pixels; choose another file.")
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise ReadError(f"{name} does not say how its pixels are stored; export it anew.")
    array = _first_success(ds, _plugins(syntax, name), name, frame)
    colour = str(ds.PhotometricInterpretation)
    if colour == PALETTE:
        array = apply_color_lut(array, _palette(ds))[..., :3]
    elif "ModalityLUTSequence" in ds and colour in GREYS:
        array = apply_modality_lut(array, ds)
    wanted = shape if colour in GREYS else (*shape, 3)
    if array.size != math.prod(wanted):
        raise ReadError(f"{name} holds other pixels than its header claims; the file is damaged.")
    array = array.reshape(wanted)
    if colour in GREYS:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    bits = 8 * array.itemsize if colour == PALETTE else int(ds.BitsStored)
    return _eight_bit(array, bits)


def _palette(ds: Dataset) -> Dataset:
    """Colour tables in little-endian order, as pydicom 3.0 takes them to be in every file."""
    little = ds.file_meta.TransferSyntaxUID.is_little_endian
    if little or "RedPaletteColorLookupTableData" not in ds:
        return ds
    tables = Dataset()
    for colour in ("Red", "Green", "Blue"):
        descriptor = f"{colour}PaletteColorLookupTableDescriptor"
        keyword = f"{colour}PaletteColorLookupTableData"
        setattr(tables, descriptor, ds[descriptor].value)
        words = np.frombuffer(ds[keyword].value, ">u2")
        setattr(tables, keyword, words.astype("<u2").tobytes())
    return tables


def _first_success(
    ds: Dataset, plugins: Sequence[str], name: str, frame: int | None
) -> NDArray[Any]:
    """The pixels from the first codec that can; the last one's failure when none can."""
    for plugin in plugins[:-1]:
        try:
            return _decoded_by(ds, plugin, name, frame)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - each codec has its own errors; the next may do
            continue
    return _decoded_by(ds, plugins[-1], name, frame)


def _decoded_by(ds: Dataset, plugin: str, name: str, frame: int | None) -> NDArray[Any]:
    if plugin and plugin != "pydicom":
        check_codestreams(ds, name, frame)
    try:
        if frame is None and frames_of(ds) > 1:
            # One by one: pydicom turns the colours of all at once in many times their memory.
            array: NDArray[Any] = np.stack([*iter_pixels(ds, decoding_plugin=plugin)])
        else:
            array = pixel_array(ds, index=frame, decoding_plugin=plugin)
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
