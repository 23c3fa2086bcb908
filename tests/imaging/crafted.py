"""Files made to harm: headers that lie, headers that point elsewhere, and bombs."""

import gzip
import struct
import zlib
from typing import Any, Final

from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from tests.imaging.dicom_series import enhanced, enhanced_pixels
from tests.imaging.good_files import (
    chunk,
    dicom,
    encapsulated,
    jpeg,
    mha,
    nifti,
    nrrd,
    packed_mha,
    pictures,
    png,
    stored_as,
)

MIB: Final = 2**20
PIXELS: Final = b"\xe0\x7f\x10\0"
NAN, INFINITE = float("nan"), float("inf")


def deflated_zeros(size: int, before: bytes = b"") -> bytes:
    """`before` and `size` zeros as a raw deflate stream."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (size // MIB) + packer.compress(bytes(size % MIB)) + packer.flush()


def zlib_zeros(size: int) -> bytes:
    """`size` zeros as a zlib stream; Adler-32 of zeros is their number and 1 (RFC 1950)."""
    return b"\x78\xda" + deflated_zeros(size) + struct.pack(">HH", size % 65521, 1)


def gzip_zeros(size: int, before: bytes = b"") -> bytes:
    """`before` and `size` zeros as a gzip stream with a right checksum (RFC 1952)."""
    checksum = zlib.crc32(before)
    for length in [MIB] * (size // MIB) + [size % MIB]:
        checksum = zlib.crc32(bytes(length), checksum)
    tail = struct.pack("<II", checksum, (len(before) + size) % 2**32)
    return b"\x1f\x8b\x08\0\0\0\0\0\2\xff" + deflated_zeros(size, before) + tail


def tiff(width: int, height: int, *, following: int = 0, packed: bytes = bytes(64)) -> bytes:
    """A grey picture whose only strip is deflated; `following` is where the next one would be."""
    strip = 8 + 2 + 9 * 12 + 4
    entries = ((256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1),
               (273, 4, strip), (277, 3, 1), (278, 4, height), (279, 4, len(packed)))  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, 9) + table + struct.pack("<I", following) + packed


def jpeg_of(width: int, height: int) -> bytes:
    """A baseline JPEG that claims another size."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def j2k(width: int, height: int, *, components: int = 1, tile: int = 2**31 - 1) -> bytes:
    """A JPEG 2000 codestream that ends after its sizes (T.800 A.5.1)."""
    size = struct.pack(">HHIIIIIIII", 38 + 3 * components, 0, width, height, 0, 0, tile, tile, 0, 0)
    parts = struct.pack(">H", components) + b"\x07\x01\x01" * components
    rest = b"\xff\x52\0\x0c\0\0\0\1\0\5\4\4\0\1\xff\x5c\0\x13\x40" + b"\x40\x48" * 8
    return b"\xff\x4f\xff\x51" + size + parts + rest + b"\xff\x90\0\x0a\0\0\0\0\0\0\0\1\xff\x93"


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    """With the one place that holds `old` overwritten."""
    place = data.index(old)
    return data[:place] + new + data[place + len(new) :]


def nested(depth: int) -> bytes:
    """A slice with sequences in sequences; SimpleITK, GDCM and DCMTK crash on it."""
    opening = b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    whole = dicom()
    place = whole.index(PIXELS + b"OW")
    return whole[:place] + opening * depth + whole[place:]


def directory(target: str) -> bytes:
    """A DICOMDIR whose only image is another file."""
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    with disable_value_validation():  # real ones hold names of 8 letters
        record.ReferencedFileID = target.split("/")
        return dicom(SOPClassUID=MediaStorageDirectoryStorage, DirectoryRecordSequence=[record])


def films(**tags: Any) -> bytes:
    """Three frames, each with its place."""
    return dicom(enhanced(), enhanced_pixels(), **tags)


LARGE = (3, 2047, 2047, 1000, 1, 1, 1, 1)
OFFSET_TABLE = b"\xfe\xff\0\xe0\4\0\0\0\xff\xff\xff\x7f"

NIFTI: Final = {
    "huge.nii": nifti(dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)),
    "huge.nii.gz": gzip.compress(nifti(dim=LARGE)),
    "overflow.nii": nifti(dim=(7, *[32767] * 7)),
    "negative.nii": nifti(dim=(3, -4, 5, 6, 1, 1, 1, 1)),
    "zero.nii": nifti(dim=(3, 4, 0, 6, 1, 1, 1, 1)),
    "dims9.nii": nifti(dim=(9, 4, 5, 6, 1, 1, 1, 1)),
    "dims0.nii": nifti(dim=(0, 4, 5, 6, 1, 1, 1, 1)),
    "offset.nii": nifti(vox_offset=1e18),
    "offsetnan.nii": nifti(vox_offset=NAN),
    "offsetneg.nii": nifti(vox_offset=-352.0),
    "cut.nii": nifti()[:-1],
    "cuthead.nii": nifti()[:200],
    "cut.nii.gz": gzip.compress(nifti())[:-30],
    "nan.nii": nifti(pixdim=(1, NAN, 1, 1, 0, 0, 0, 0)),
    "infinite.nii": nifti(pixdim=(1, 1, INFINITE, 1, 0, 0, 0, 0)),
    "spacing0.nii": nifti(pixdim=(1, 1, 1, 0, 0, 0, 0, 0)),
    "spacingneg.nii": nifti(pixdim=(1, 1, -1, 1, 0, 0, 0, 0)),
    "sform.nii": nifti(srow_x=(NAN, 0, 0, 0)),
    "flat.nii": nifti(srow_x=(0.0, 0, 0, 0)),
    "type.nii": nifti(datatype=4242),
    "complex.nii": nifti(datatype=32, bitpix=64),
    "pair.nii": nifti(magic=b"ni1\0"),
    "head.nii": nifti(sizeof_hdr=349),
    "empty.nii": b"",
    "empty.nii.gz": b"",
    "crc.nii.gz": gzip.compress(nifti())[:-6] + bytes(6),
    "twice.nii.gz": gzip.compress(gzip.compress(nifti())),
    "zipmany.nii.gz": gzip.compress(nifti() + bytes(9 * MIB)),
}  # fmt: skip

TEXT: Final = {
    "huge.nrrd": nrrd(sizes="999999 999999 999999"),
    "negative.nrrd": nrrd(sizes="-3 4 5"),
    "zero.nrrd": nrrd(sizes="3 0 5"),
    "overflow.nrrd": nrrd(sizes="4294967296 4294967296 4294967296"),
    "int64.nrrd": nrrd(sizes="3 4 9223372036854775813"),
    "cut.nrrd": nrrd(bytes(59)),
    "few.nrrd": nrrd(sizes="3 4"),
    "nan.nrrd": nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,2)"),
    "nonedir.nrrd": nrrd(space_directions="none (0,1,0) (0,0,2)"),
    "flat.nrrd": nrrd(space_directions="(1,0,0) (1,0,0) (0,0,2)"),
    "origin.nrrd": nrrd(space_origin="(0,inf,0)"),
    "spacing.nrrd": nrrd(spacings="1 -1 1"),
    "type.nrrd": nrrd(type="block"),
    "text.nrrd": nrrd(encoding="ascii"),
    "skip.nrrd": nrrd(byte_skip="-1"),
    "twice.nrrd": nrrd().replace(b"type", b"Sizes: 9 9 9\ntype"),
    "cr.nrrd": nrrd().replace(b"type", b"# \rtype"),
    "series.nrrd": nrrd(dimension="4", sizes="1 3 4 5", space_directions="none " * 4),
    "empty.nrrd": b"",
    "huge.mha": mha(DimSize="99999 99999 99999"),
    "int64.mha": mha(DimSize="3 4 18446744073709551621"),
    "negative.mha": mha(DimSize="3 -4 5"),
    "zero.mha": mha(DimSize="3 4 0"),
    "cut.mha": mha(bytes(59)),
    "few.mha": mha(DimSize="3 4"),
    "nan.mha": mha(ElementSpacing="1 nan 1"),
    "spacing0.mha": mha(ElementSpacing="1 0 1"),
    "spacingneg.mha": mha(ElementSpacing="1 -1 1"),
    "matrix.mha": mha(TransformMatrix="1 0 0 0 1 0 0 0"),
    "flat.mha": mha(TransformMatrix="1 0 0 1 0 0 0 0 1"),
    "offset.mha": mha(Offset="0 1e999 0"),
    "channels.mha": mha(ElementNumberOfChannels="0"),
    "headersize.mha": mha(HeaderSize="-1"),
    "type.mha": mha(ElementType="MET_STRING"),
    "text.mha": mha(BinaryData="False"),
    "zip.mha": mha(CompressedData="True", CompressedDataSize="60"),
    "zipless.mha": mha(zlib.compress(bytes(60)), CompressedData="True"),
    "zipcut.mha": packed_mha(zlib.compress(bytes(60)), CompressedDataSize="9"),
    "zipfew.mha": packed_mha(zlib.compress(bytes(59))),
    "dims.mha": mha(NDims="99"),
    "empty.mha": b"",
}  # fmt: skip

PICTURES: Final = {
    "cut.png": next(pictures())[:-60],
    "huge.png": png(2**31 - 1, 2**31 - 1, zlib.compress(bytes(64))),
    "zero.png": png(0, 4, zlib.compress(bytes(64))),
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "svg.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "huge.jpg": jpeg_of(65_500, 65_500),
    "elf.tif": b"\x7fELF" + bytes(100),
    "huge.tif": tiff(2**32 - 1, 2**32 - 1),
    "loop.tif": tiff(8, 8, following=8),
}

DICOM: Final = {
    "rows0.dcm": dicom(Rows=0),
    "rows.dcm": dicom(Rows=41),
    "columns.dcm": dicom(Columns=65_535),
    "huge.dcm": dicom(Rows=60_000, Columns=60_000),
    "frames.dcm": films(NumberOfFrames=4),
    "framesless.dcm": dicom(NumberOfFrames=100),
    "framesneg.dcm": films(NumberOfFrames=-1),
    "frameshuge.dcm": films(NumberOfFrames=2**31 - 1),
    "bits0.dcm": dicom(BitsAllocated=0),
    "bits13.dcm": dicom(BitsAllocated=13),
    "bitsstored.dcm": dicom(BitsStored=200),
    "samples.dcm": dicom(SamplesPerPixel=3),
    "colour.dcm": dicom(PhotometricInterpretation="HSV"),
    "spacing0.dcm": dicom(PixelSpacing=[0, 1]),
    "spacingneg.dcm": dicom(PixelSpacing=[-1, 1]),
    "directions.dcm": dicom(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
    "directions0.dcm": dicom(ImageOrientationPatient=[0] * 6),
    "position.dcm": dicom(ImagePositionPatient=[1, 2]),
    "positioninf.dcm": patched(
        dicom(ImagePositionPatient=["123456", "0", "0"]), b"123456", b"1e9999"
    ),
    "positionnan.dcm": patched(
        dicom(ImagePositionPatient=["123456", "0", "0"]), b"123456", b"   nan"
    ),
    "syntax.dcm": patched(dicom(), b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"),
    "length.dcm": patched(dicom(), PIXELS + b"OW\0\0", PIXELS + b"OW\0\0\xf0\xff\xff\xff")[:-9],
    "lengthearly.dcm": patched(dicom(), b"\x08\0\x18\0UI", b"\x08\0\x18\0UT\0\0\xfe\xff\xff\xff"),
    "cut.dcm": dicom()[:-1],
    "cuthead.dcm": dicom()[:300],
    "nested.dcm": nested(20_000),
    "directory.dcm": directory("../../secret.dcm"),
    "segmentation.dcm": dicom(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"),
    "deflate.dcm": stored_as(DeflatedExplicitVRLittleEndian)[:900] + bytes(400),
    "offsets.dcm": encapsulated(
        JPEGBaseline8Bit, jpeg(), PixelData=OFFSET_TABLE + encapsulate([jpeg()])[8:]
    ),
    "nofragment.dcm": encapsulated(JPEGBaseline8Bit, jpeg(), PixelData=b"\xfe\xff\0\xe0\0\0\0\0"),
    "huge.j2k.dcm": encapsulated(JPEG2000Lossless, j2k(2**31 - 1, 2**31 - 1)),
    "components.j2k.dcm": encapsulated(JPEG2000Lossless, j2k(10, 12, components=16_000)),
    "tiles.j2k.dcm": encapsulated(JPEG2000Lossless, j2k(10, 12, tile=0)),
    "huge.jpg.dcm": encapsulated(JPEGBaseline8Bit, jpeg_of(65_500, 65_500)),
    "huge.jls.dcm": encapsulated(
        JPEGLSLossless, b"\xff\xd8\xff\xf7\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xda"
    ),
    "rle.dcm": encapsulated(RLELossless, struct.pack("<16I", 15, *[2**32 - 1] * 15)),
}

HEADERS: Final = NIFTI | TEXT | PICTURES | DICOM
"""Each lies about a size, a place, a type or a length, or is no image at all."""


def bombs() -> dict[str, bytes]:
    """Small files that would grow to GiB; as bytes of files by their names."""
    gib = 2**30
    half = (3, 1024, 1024, 1024, 1, 1, 1, 1)
    volume = nifti(dim=half, datatype=4)[:352]
    before = stored_as(DeflatedExplicitVRLittleEndian)
    group_length = b"\2\0\0\0UL\4\0"
    within = _deflated_dicom(before, 2 * gib - 2 * MIB)
    return {
        "bomb.dcm": _deflated_dicom(before, 2 * gib + MIB),
        "bombwithin.dcm": within,
        # Whoever believes where the meta information ends counts nothing here.
        "bombelsewhere.dcm": patched(within, group_length, group_length + b"\xff" * 4),
        "bomb.nii.gz": gzip_zeros(2 * gib, volume),
        "bomblying.nii.gz": gzip_zeros(2 * gib, nifti()),
        "bombinbomb.nii.gz": gzip.compress(gzip_zeros(2 * gib, volume)),
        "bomb.nrrd": nrrd(gzip_zeros(2 * gib), type="short", sizes="1024 1024 1024",
                          encoding="gzip", endian="little"),
        "bomblying.nrrd": nrrd(gzip_zeros(gib), encoding="gzip"),
        "bomb.mha": packed_mha(zlib_zeros(gib), DimSize="1024 1024 1024"),
        "bomblying.mha": packed_mha(zlib_zeros(gib)),
        "bomb.png": png(50_000, 50_000, zlib_zeros(50_000 * 6251), bits=1),
        "large.png": png(12_000, 12_000, zlib_zeros(12_000 * 12_001)),
        "text.png": _text_bomb(),
        "bomb.tif": tiff(50_000, 50_000, packed=zlib_zeros(50_000 * 50_000)),
    }  # fmt: skip


def _deflated_dicom(good: bytes, size: int) -> bytes:
    """A deflated slice with that many zeros in a private element before its pixels."""
    start = 144 + int.from_bytes(good[140:144], "little")
    inner = zlib.decompress(good[start:], -zlib.MAX_WBITS)
    place = inner.index(PIXELS + b"OW")
    element = b"\x09\0\x10\x10OB\0\0" + struct.pack("<I", size)
    return good[:start] + deflated_zeros(size, inner[:place] + element)


def _text_bomb() -> bytes:
    """A picture with a compressed comment of 256 MiB."""
    good = next(pictures())
    return good[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib_zeros(256 * MIB)) + good[33:]


CANARY: Final = bytes(range(60))
"""As many bytes as the image needs, so that reading it would succeed."""


def detached(target: str) -> dict[str, bytes]:
    """Headers that name another file as their voxels, each in another way."""
    head = nrrd(b"")[:-1]
    local = mha(b"")
    meta = local.replace(b"LOCAL", target.encode())
    name = target.encode()
    return {
        "1.mhd": meta, "2.mhd": meta + local + CANARY, "3.mha": meta,
        "4.mha": meta.replace(b" = ", b"="),
        "5.mha": meta.replace(b"ElementDataFile =", b"ElementDataFile :"),
        "6.mha": meta.replace(b"ElementDataFile", b"  ElementDataFile"),
        "7.mha": local.replace(b"LOCAL", b"LIST\n" + name), "8.mha": meta + local + CANARY,
        "9.mha": b"ElementDataFile = " + name + b"\n" + local + CANARY,
        "10.mha": local.replace(b"LOCAL", name + b" %d 1 1 1"),
        "11.mha": b"Comment = x\rElementDataFile = " + name + b"\r" + local + CANARY,
        "12.nhdr": head + b"data file: " + name + b"\n\n", "13.nhdr": nrrd(),
        "14.nrrd": head + b"data file: " + name + b"\n\n" + CANARY,
        "15.nrrd": head + b"datafile: " + name + b"\n",
        "16.nrrd": head + b"DATA FILE: " + name + b"\n",
        "17.nrrd": head + b"data file: LIST\n" + name + b"\n\n",
        "18.nrrd": head + b"data file: " + name[:-1] + b"%d 0 9 1\n\n",
        "19.nrrd": head + b" data file: " + name + b"\n\n" + CANARY,
        "20.nrrd": head + b"# x\rdata file: " + name + b"\r\n\r\n" + CANARY,
        "21.nrrd": (head + b"data file: " + name + b"\n\n").replace(b"\n", b"\r\n"),
        "22.nrrd": head + b"data\tfile: " + name + b"\n\n" + CANARY,
        "23.nrrd": head + b"data file:" + name + b"\n\n" + CANARY,
        "24.nrrd": head.replace(b"type", b"data file: " + name + b"\ntype") + b"\n" + CANARY,
        "25.nii": nifti(magic=b"ni1\0"), "26.hdr": nifti(magic=b"ni1\0")[:352],
        "27.dcm": directory(target), "DICOMDIR": directory(target),
    }  # fmt: skip
