"""Small good files of every kind, made by code; each header field may be given another value."""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.imaging.dicom_series import bundled, enhanced, enhanced_pixels, header

VOXELS = np.random.default_rng(3).integers(0, 200, 60).astype(np.uint8).tobytes()
PICTURE = np.random.default_rng(4).integers(0, 256, (12, 10), np.uint8)
SLICE = (np.arange(40 * 36).reshape(40, 36) * 7 % 900 - 100).astype(np.int16)


def nifti(wide: bool = False, **fields: Any) -> bytes:
    """4 x 5 x 6 int16 voxels; `wide` is NIfTI-2, whose fields stay as they are."""
    array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image: Any = (nib.Nifti2Image if wide else nib.Nifti1Image)(array, np.eye(4))
    data = bytearray(image.to_bytes())
    places = {
        "sizeof_hdr": (0, "<i"), "dim": (40, "<8h"), "datatype": (70, "<h"), "bitpix": (72, "<h"),
        "pixdim": (76, "<8f"), "vox_offset": (108, "<f"), "magic": (344, "4s"),
        "srow_x": (280, "<4f"),
    }  # fmt: skip
    for name, value in fields.items():
        place, layout = places[name]
        struct.pack_into(layout, data, place, *(value if isinstance(value, tuple) else (value,)))
    return bytes(data)


def nrrd(tail: bytes = VOXELS, **fields: str) -> bytes:
    """3 x 4 x 5 uint8 voxels."""
    good = {
        "type": "uint8", "dimension": "3", "space": "left-posterior-superior", "sizes": "3 4 5",
        "space_directions": "(1,0,0) (0,1,0) (0,0,2)", "encoding": "raw", "space_origin": "(0,0,0)",
    }  # fmt: skip
    lines = [f"{name.replace('_', ' ')}: {value}\n" for name, value in (good | fields).items()]
    return b"NRRD0004\n" + "".join(lines).encode() + b"\n" + tail


def mha(tail: bytes = VOXELS, **fields: str) -> bytes:
    """3 x 4 x 5 uint8 voxels."""
    good = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "1 1 2",
        "DimSize": "3 4 5", "ElementType": "MET_UCHAR",
    }  # fmt: skip
    last = {"ElementDataFile": fields.pop("ElementDataFile", "LOCAL")}
    return "".join(f"{a} = {b}\n" for a, b in (good | fields | last).items()).encode() + tail


def packed_mha(packed: bytes, **fields: str) -> bytes:
    """With voxels that zlib has compressed."""
    return mha(packed, CompressedData="True", **{"CompressedDataSize": str(len(packed))} | fields)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, packed: bytes, *, bits: int = 8, interlace: int = 0) -> bytes:
    """A grey picture with this compressed data."""
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, interlace)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def interlaced(picture: np.ndarray) -> bytes:
    """Adam7, which Pillow reads and does not write."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))  # fmt: skip
    rows = (
        b"\0" + row.tobytes()
        for top, left, down, right in starts
        for row in picture[top::down, left::right]
        if row.size
    )
    height, width = picture.shape
    return png(width, height, zlib.compress(b"".join(rows)), interlace=1)


def pictures() -> Iterator[bytes]:
    """PNG: 8 and 16 bit grey, RGB, with transparency, palette, interlaced."""
    colour = np.stack([PICTURE, PICTURE[::-1], PICTURE[:, ::-1]], axis=-1)
    for image in (
        Image.fromarray(PICTURE),
        Image.fromarray(PICTURE.astype(np.uint16) * 200),
        Image.fromarray(colour),
        Image.fromarray(np.dstack([colour, PICTURE])),
        Image.fromarray(colour).quantize(16),
    ):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        yield stream.getvalue()
    yield interlaced(PICTURE)


def dicom(ds: FileDataset | None = None, stored: np.ndarray = SLICE, **tags: Any) -> bytes:
    """Uncompressed in the file's transfer syntax; the same bytes each time."""
    ds = header((0, 0, 0)) if ds is None else ds
    ds.Rows, ds.Columns = stored.shape[1:3] if "NumberOfFrames" in ds else stored.shape[:2]
    pixels = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        pixels = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    ds.PixelData = pixels
    ds["PixelData"].VR = "OB" if stored.itemsize == 1 else "OW"
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return _written(ds)


def _written(ds: FileDataset) -> bytes:
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.5"
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def stored_as(syntax: str, **tags: Any) -> bytes:
    """A slice in another uncompressed transfer syntax."""
    ds = header((0, 0, 0))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.set_original_encoding(
        syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian, character_encoding=None
    )
    return dicom(ds, **tags)


def compressed(syntax: str) -> bytes:
    """A slice compressed without loss."""
    ds = header((0, 0, 0))
    ds.Rows, ds.Columns = SLICE.shape
    ds.compress(syntax, SLICE, generate_instance_uid=False)
    return _written(ds)


def encapsulated(syntax: str, frame: bytes, **tags: Any) -> bytes:
    """An 8-bit slice of 12 x 10 pixels with this as its compressed frame."""
    ds = header((0, 0, 0))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.Rows, ds.Columns = PICTURE.shape
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return _written(ds)


def jpeg() -> bytes:
    """A baseline JPEG picture."""
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, "JPEG")
    return stream.getvalue()


def slices() -> Iterator[bytes]:
    """DICOM: each way to store pixels, several frames, colour, and three scanners' own files."""
    yield dicom()
    yield dicom(enhanced(), enhanced_pixels())
    colour = header(None, SamplesPerPixel=3, PhotometricInterpretation="RGB", PixelRepresentation=0,
                    PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7)  # fmt: skip
    yield dicom(colour, np.stack([PICTURE] * 3, axis=-1))
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        yield stored_as(syntax)
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        yield compressed(syntax)
    yield encapsulated(JPEGBaseline8Bit, jpeg())
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        yield bundled(name).read_bytes()


def good_files(kind: str) -> tuple[bytes, ...]:
    """The files that mutants of a kind are made from; see `mutants.SUFFIXES` for the kinds."""
    if kind == "DICOM":
        return tuple(slices())
    if kind == "PNG":
        return tuple(pictures())
    if kind == "NRRD":
        return nrrd(), nrrd(gzip.compress(VOXELS, mtime=0), encoding="gzip")
    if kind == "MHA":
        return mha(), packed_mha(zlib.compress(VOXELS))
    plain = nifti(), nifti(wide=True)
    return plain if kind == "NIfTI" else tuple(gzip.compress(data, mtime=0) for data in plain)
