"""Damaged files from a seed: any one can be made again from its kind, seed and number.

Half of the edits know the format: they set a size, a type, a length or a number of the header
to a value that readers stumble over, and where a checksum guards a part (gzip, PNG, deflated
DICOM) they are made below it, as only then do they reach the reader.
"""

import gzip
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from nibabel.nifti1 import header_dtype as NIFTI1
from nibabel.nifti2 import header_dtype as NIFTI2

from tests.imaging.good_files import chunk, good_files

SUFFIXES: Final = {
    "DICOM": ".dcm", "NIfTI": ".nii", ".nii.gz": ".nii.gz", "NRRD": ".nrrd", "MHA": ".mha",
    "PNG": ".png",
}  # fmt: skip
"""The kinds of files there are mutants of, and how their names end."""

_WORDS: Final = (
    "-1", "0", "1", "nan", "-inf", "1e999", "1e-320", "2147483648", "4294967297", "9" * 19,
    "9" * 40, "0x10", "", " ", "\0", "raw", "gzip", "True", "(0,0,0)", "none", "float", "../a",
)  # fmt: skip
_VRS: Final = (
    b"OB", b"OW", b"SQ", b"UN", b"UT", b"US", b"DS", b"IS", b"AT", b"FD", b"PN", b"UI", b"zz",
    b"\0\0",
)  # fmt: skip
_LONG_VRS: Final = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT",
                    b"SV", b"UV")  # fmt: skip

Field = tuple[int, int, str]
"""Place, size, and what it holds: "int", "float", "text" or "vr"."""


@dataclass(frozen=True)
class Base:
    """What edits are made on: bytes, the header fields among them, and what makes a file of it."""

    data: bytes
    fields: tuple[Field, ...]
    packed: Callable[[bytes], bytes] = bytes


def mutant(kind: str, seed: int, number: int) -> bytes:
    """One damaged file of a kind; the same for the same arguments."""
    rng = random.Random(f"{kind} {seed} {number}")  # noqa: S311 - seeded on purpose
    base = rng.choice(_bases(kind))
    data = bytearray(base.data)
    if base.fields and rng.random() < 0.6:
        chosen = rng.sample(base.fields, min(rng.choice((1, 1, 2, 4)), len(base.fields)))
        for field in sorted(chosen, reverse=True):  # from the end, so that places stay right
            _set_field(data, field, rng)
    else:
        for _ in range(rng.randint(1, 4)):
            _edit(data, rng, kind)
    return base.packed(bytes(data))


def _edit(data: bytearray, rng: random.Random, kind: str) -> None:
    """Flip, set, cut, repeat, remove, insert, overwrite or splice; most often near the start."""
    end = min(len(data), 600) if rng.random() < 0.6 else len(data)
    place = rng.randrange(max(end, 1))
    span = slice(place, place + rng.choice((1, 2, 4, 9, 40, 400)))
    match rng.randrange(9):
        case 0 if place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        case 1:
            data[place : place + 1] = rng.randbytes(1)
        case 2 if rng.random() < 0.4:
            data[rng.randrange(len(data) + 1) :] = b""
        case 3:
            data[place:place] = data[span]
        case 4:
            data[span] = b""
        case 5:
            data[place:place] = rng.randbytes(rng.randint(1, 40))
        case 6:
            data[span] = rng.choice((b"\0", b"\xff", b"\x7f")) * (span.stop - place)
        case 7:
            other = rng.choice(_bases(kind)).data
            data[place:] = other[rng.randrange(len(other)) :]
        case _:
            data[place : place + 4] = rng.choice(_WORDS).encode()


def _set_field(data: bytearray, field: Field, rng: random.Random) -> None:
    place, size, holds = field
    old = bytes(data[place : place + size])
    match holds:
        case "vr":
            new = rng.choice(_VRS)
        case "text":
            new = rng.choice(_WORDS).encode()
            new = new.ljust(size)[:size] if rng.random() < 0.3 else new
        case "float":
            values = (np.nan, np.inf, -1.0, 0.0, 1e30, 1e-30, 1e18, -352.0)
            new = struct.pack("<f" if size == 4 else "<d", rng.choice(values))
        case _:
            order = rng.choice(("little", "big"))
            value, top = int.from_bytes(old, order), 256**size - 1
            values = (0, 1, top, top // 2, top // 2 + 1, value + 1, value - 1, value * 2,
                      value ^ 1 << rng.randrange(8 * size), rng.randint(0, top), 65535)  # fmt: skip
            new = (rng.choice(values) % (top + 1)).to_bytes(size, order)
    data[place : place + size] = new


@cache
def _bases(kind: str) -> tuple[Base, ...]:
    return tuple(base for data in good_files(kind) for base in _views(kind, data))


def _views(kind: str, data: bytes) -> Iterator[Base]:
    """A good file as a whole, and as what lies below its checksum."""
    match kind:
        case "DICOM":
            start = _after_meta(data)
            yield Base(data, tuple(_elements(data)))
            try:
                inner = zlib.decompress(data[start:], -zlib.MAX_WBITS)
            except zlib.error:
                return
            fields = tuple(_elements(inner, 0))
            yield Base(inner, fields, lambda edited: data[:start] + _deflated(edited))
        case ".nii.gz":
            yield Base(data, ())
            inner = gzip.decompress(data)
            yield Base(
                inner, tuple(_nifti_fields(inner)), lambda edited: gzip.compress(edited, 1, mtime=0)
            )
        case "NIfTI":
            yield Base(data, tuple(_nifti_fields(data)))
        case "PNG":
            chunks = tuple(_chunk_fields(data))
            yield Base(data, chunks)
            yield Base(data, chunks, _with_checksums)
        case _:
            yield Base(data, tuple(_text_fields(data)))


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _nifti_fields(data: bytes) -> Iterator[Field]:
    layout = NIFTI1 if data[:4] == b"\x5c\1\0\0" else NIFTI2
    for kind, place, *_ in (layout.fields or {}).values():
        part, shape = kind.subdtype or (kind, ())
        size = part.itemsize if part.kind in "if" else 4
        for index in range(int(np.prod(shape))):
            yield place + index * size, size, "float" if part.kind == "f" else "int"


def _text_fields(data: bytes) -> Iterator[Field]:
    """Words of the header lines, names and values."""
    end = data.find(b"\n\n")
    end = data.index(b"LOCAL\n") + 6 if end < 0 else end
    for word in re.finditer(rb"[^\s=:(),]+|[=:(),]", data[:end]):
        yield word.start(), len(word[0]), "text"


def _chunk_fields(data: bytes) -> Iterator[Field]:
    """Length, type and first bytes of each chunk."""
    place = 8
    while place < len(data):
        yield place, 4, "int"
        yield place + 4, 4, "text"
        if data[place + 4 : place + 8] == b"IHDR":
            yield from ((place + 8, 4, "int"), (place + 12, 4, "int"))
            yield from ((place + at, 1, "int") for at in range(16, 21))
        place += 12 + int.from_bytes(data[place : place + 4], "big")


def _with_checksums(data: bytes) -> bytes:
    """As many chunks as there are, each with a right checksum."""
    made, place = data[:8], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        made += chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + size])
        place += 12 + size
    return made + data[place:]


def _after_meta(data: bytes) -> int:
    """Where the data set starts: the length of the file meta group is its first value."""
    return 144 + int.from_bytes(data[140:144], "little")


def _elements(data: bytes, start: int = 132) -> Iterator[Field]:
    """Fields of explicit little-endian elements; sequences and items are entered (PS3.5, 7)."""
    place = start
    while place + 8 <= len(data):
        if data[place : place + 2] == b"\xfe\xff":  # an item or a delimiter, which has no VR
            yield place + 4, 4, "int"
            place += 8
            continue
        vr = data[place + 4 : place + 6]
        if not vr.isalpha():
            return
        long = vr in _LONG_VRS
        at, width = (place + 8, 4) if long else (place + 6, 2)
        size, value = int.from_bytes(data[at : at + width], "little"), at + width
        yield from ((place, 4, "int"), (place + 4, 2, "vr"), (at, width, "int"))
        if 0 < size <= 8:
            yield value, size, "int"
        if vr in (b"DS", b"IS", b"CS", b"UI") and size:
            yield value, size, "text"
        place = value if vr == b"SQ" or size == 2**32 - 1 else value + size
