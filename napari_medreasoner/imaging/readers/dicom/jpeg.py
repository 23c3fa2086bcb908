"""JPEG that Pillow cannot decode: lossless of any predictor, and more than eight bits.

Two codecs of imagecodecs, made known to pydicom's own decoders; pydicom finds the frames,
extends signs and turns colours to RGB, as for every other codec. Lossless goes to jpegsof3, as
libjpeg-turbo 3.1 misreads colours that do not share one Huffman table, and says nothing.

Standard: ITU-T T.81 (processes 2, 4 and 14), DICOM PS3.5 8.2.1.
"""

from __future__ import annotations

from typing import Final

import imagecodecs
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

__all__ = ["DECODER_DEPENDENCIES", "LABEL", "decode_frame", "is_available", "make_known"]

LABEL: Final = "imagecodecs"
"""Name of this codec among pydicom's plugins."""

_LOSSLESS: Final = (JPEGLossless, JPEGLosslessSV1)

# The two names below are what pydicom asks of a module with a plugin.
DECODER_DEPENDENCIES: Final = dict.fromkeys(
    (JPEGBaseline8Bit, JPEGExtended12Bit, *_LOSSLESS), (LABEL,)
)


def is_available(syntax: UID) -> bool:
    """Whether frames of a transfer syntax can be decoded here."""
    codec = imagecodecs.JPEGSOF3 if syntax in _LOSSLESS else imagecodecs.JPEG8
    return syntax in DECODER_DEPENDENCIES and bool(codec.available)


def make_known() -> None:
    """Offer `decode_frame` to pydicom; a second call does nothing."""
    for syntax in DECODER_DEPENDENCIES:
        decoder = get_decoder(syntax)
        if LABEL not in decoder.available_plugins:
            decoder.add_plugin(LABEL, (__name__, "decode_frame"))


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Stored values of one frame, little-endian, colour by pixel.

    Parameters
    ----------
    src : bytes
        One JPEG codestream.
    runner : DecodeRunner
        What pydicom knows of the image; told that colours come by pixel.

    Raises
    ------
    ValueError
        When the stream holds other pixels than the header says; imagecodecs raises its own
        errors on damaged streams.
    """
    samples = runner.samples_per_pixel
    if runner.transfer_syntax in _LOSSLESS:
        frame = imagecodecs.jpegsof3_decode(src)
    else:
        # One colour space in and out: the header says what samples are, not libjpeg's guess.
        space = "RGB" if samples == 3 else None
        frame = imagecodecs.jpeg8_decode(src, colorspace=space, outcolorspace=space)
    shape = (runner.rows, runner.columns, samples)[: 3 if samples > 1 else 2]
    if frame.shape != shape or 8 * frame.itemsize > runner.bits_allocated:
        raise ValueError("The codestream holds other pixels than the header says.")
    runner.set_option("planar_configuration", 0)
    return bytes(frame.astype(f"<u{runner.bits_allocated // 8}", copy=False).tobytes())
