"""NRRD and MetaImage through SimpleITK, after a strict look at the header of our own.

Both formats let a small text header name any file of the machine as its voxels, and SimpleITK
follows it. Here the header must be one both of us understand alike: one file, in plain lines,
with sizes its bytes can hold. Formats: teem's "Definition of NRRD File Format" and the MetaIO
documentation of ITK.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.imaging.orientation import displayed
from napari_medreasoner.imaging.readers.kinds import DETACHED
from napari_medreasoner.imaging.readers.limits import check_claim, check_packed
from napari_medreasoner.imaging.volume import Volume

__all__ = ["read_itk"]

_HEADER_BYTES: Final = 2**16
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)

_NRRD_BITS: Final = {
    name: bits
    for bits, names in {
        8: "signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t",
        16: "short,short int,signed short,signed short int,int16,int16_t,"
        "ushort,unsigned short,unsigned short int,uint16,uint16_t",
        32: "int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,float",
        64: "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t,"
        "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t,double",
    }.items()
    for name in names.split(",")
}
_NRRD_SPACES: Final = (
    "left-posterior-superior", "lps", "right-anterior-superior", "ras",
    "left-anterior-superior", "las",
)  # fmt: skip
"""Patient spaces that SimpleITK turns to LPS; others it hands on as if they were LPS."""

# `long` is 4 or 8 bytes, as the writer's machine had it, so it is not here.
_META_BITS: Final = {
    "MET_CHAR": 8, "MET_UCHAR": 8, "MET_SHORT": 16, "MET_USHORT": 16, "MET_INT": 32,
    "MET_UINT": 32, "MET_LONG_LONG": 64, "MET_ULONG_LONG": 64, "MET_FLOAT": 32, "MET_DOUBLE": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a header says: spatial sizes (i, j[, k]), components, and how the voxels are stored."""

    sizes: tuple[int, ...]
    components: int
    bits: int
    packed: bool
    patient: bool
    """The header says how the axes lie in the patient."""
    stored: int | None = None
    """Bytes of the compressed voxels, where the header says so."""


def _damaged(path: Path, what: str) -> ReadError:
    return ReadError(f"{path.name} has {what} in its header; the file is damaged.")


def _detached(path: Path) -> ReadError:
    single = ".nrrd" if path.suffix.lower() in {".nrrd", ".nhdr"} else ".mha"
    return ReadError(
        f"{path.name} is only a header whose voxels lie in another file; save the image as one "
        f"{single} file."
    )


def _numbers(path: Path, text: str, count: int) -> tuple[float, ...]:
    """Exactly `count` finite numbers."""
    words = text.split()
    if len(words) != count or not all(map(_NUMBER.fullmatch, words)):
        raise _damaged(path, f'"{text[:40]}" instead of {count} numbers')
    numbers = tuple(map(float, words))
    if not all(map(math.isfinite, numbers)):
        raise _damaged(path, "a number that is not finite")
    return numbers


def _sizes(path: Path, text: str, count: int) -> tuple[int, ...]:
    words = text.split()
    if len(words) != count or not all(re.fullmatch(r"[-+]?\d{1,18}", word) for word in words):
        raise _damaged(path, f'the size "{text[:40]}"')
    return tuple(map(int, words))


def _positive(path: Path, numbers: tuple[float, ...]) -> None:
    if min(numbers) <= 0:
        raise ReadError(
            f"{path.name} has the voxel spacing {list(numbers)}, which cannot be; repair its "
            "header."
        )


def _fields(path: Path, head: bytes, pattern: str) -> dict[str, str]:
    """Fields of a text header by lower-case name; each line must match, and none come twice."""
    text = head.replace(b"\r\n", b"\n").decode("latin-1")
    # A control character is a place where two parsers may see different lines.
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in text):
        raise _damaged(path, "a control character")
    fields: dict[str, str] = {}
    for line in filter(str.strip, text.split("\n")):
        match = re.fullmatch(pattern, line)
        if match is None:
            raise _damaged(path, f'the line "{line[:40]}"')
        name, value = match["name"], match["value"]
        if name is None:
            continue
        name = " ".join(name.lower().split())
        if name in fields:
            raise _damaged(path, f'"{name}" twice')
        fields[name] = value.strip()
    return fields


def _need(path: Path, fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise _damaged(path, f'no "{name}"')
    return fields[name]


def _nrrd(path: Path, block: bytes) -> tuple[_Claim, int]:
    """Claim of a NRRD header and where its voxels begin."""
    if not re.match(rb"NRRD000[1-5]\r?\n", block):
        raise _damaged(path, "no NRRD mark")
    if re.search(rb"(?im)^\s*data\s*file\s*:", block.partition(b"\n\n")[0]):
        raise _detached(path)
    end = re.search(rb"\r?\n\r?\n", block)
    if end is None:
        raise _detached(path) if len(block) < _HEADER_BYTES else _damaged(path, "no end")
    start = block.index(b"\n") + 1
    # Comments and "key:=value" pairs carry free text; everything else is "field: value".
    pattern = r"#.*|[^:]*:=.*|(?P<name>[A-Za-z][A-Za-z ]*):(?!=)(?P<value>.*)"
    fields = _fields(path, block[start : end.start()], pattern)
    if any(name.replace(" ", "") == "datafile" for name in fields):
        raise _detached(path)
    for skip in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(skip, "0") != "0":
            raise _damaged(path, f'a "{skip}"')
    return _nrrd_claim(path, fields), end.end()


def _nrrd_claim(path: Path, fields: Mapping[str, str]) -> _Claim:
    (dimension,) = _sizes(path, _need(path, fields, "dimension"), 1)
    if not 2 <= dimension <= 4:
        raise ReadError(f"{path.name} has {dimension} dimensions; choose one volume of it.")
    sizes = _sizes(path, _need(path, fields, "sizes"), dimension)
    kind = _need(path, fields, "type").lower()
    encoding = _need(path, fields, "encoding").lower()
    if kind not in _NRRD_BITS:
        raise _damaged(path, f'the voxel type "{kind[:40]}"')
    if encoding not in {"raw", "gzip", "gz"}:
        raise ReadError(f'{path.name} is encoded as "{encoding[:20]}"; save it as raw or gzip.')
    kinds = fields.get("kinds", "").lower().split()
    colour = bool(kinds) and kinds[0] in {"rgb-color", "vector", "3-vector", "3-color", "list"}
    if dimension == 4 and not colour:
        raise ReadError(f"{path.name} holds a series of volumes; save the one you mean.")
    spatial = sizes[1:] if colour else sizes
    components = sizes[0] if colour else 1
    placed = _nrrd_geometry(path, fields, len(spatial), colour=colour)
    patient = placed and fields.get("space", "").lower() in _NRRD_SPACES
    return _Claim(spatial, components, _NRRD_BITS[kind], encoding != "raw", patient)


def _nrrd_geometry(path: Path, fields: Mapping[str, str], axes: int, *, colour: bool) -> bool:
    """Check spacings, directions and origin; whether there are directions."""
    if "spacings" in fields:
        words = fields["spacings"].split()
        _positive(path, _numbers(path, " ".join(words[1:] if colour else words), axes))
    if "space origin" in fields:
        _vector(path, fields["space origin"])
    if "space directions" not in fields:
        return False
    vectors = re.findall(r"\([^()]*\)|[^\s()]+", fields["space directions"])
    if colour and vectors[:1] == ["none"]:
        vectors = vectors[1:]
    if len(vectors) != axes or not all(any(_vector(path, vector)) for vector in vectors):
        raise _damaged(path, "an axis without a direction")
    return True


def _vector(path: Path, text: str) -> tuple[float, ...]:
    inner = re.fullmatch(r"\s*\(([^()]*)\)\s*", text)
    if inner is None:
        raise _damaged(path, f'"{text[:40]}" instead of a vector')
    words = inner[1].split(",")
    return _numbers(path, " ".join(words), len(words))


def _meta(path: Path, block: bytes) -> tuple[_Claim, int]:
    """Claim of a MetaImage header and where its voxels begin."""
    last = re.search(rb"(?i)elementdatafile([^\n]*)\n", block)
    if last is None:
        raise _damaged(path, "no data")
    head = block[: last.end()]
    pattern = r"\s*(?P<name>[A-Za-z][\w\[\] -]*?)\s*=(?P<value>.*)"
    fields = _fields(path, head, pattern)
    # The data begin after this field whatever comes later, so it must be a whole line.
    if next(reversed(fields)) != "elementdatafile" or fields["elementdatafile"].upper() != "LOCAL":
        raise _detached(path)
    if fields.get("objecttype", "image").lower() != "image":
        raise _damaged(path, "another object than an image")
    if fields.get("binarydata", "true").lower() != "true":
        raise ReadError(f"{path.name} holds its voxels as text; save it as binary.")
    for name in ("headersize", "headersizeperslice", "headersizesperdatafile"):
        if name in fields:
            raise _damaged(path, f'"{name}"')
    return _meta_claim(path, fields), last.end()


def _meta_claim(path: Path, fields: Mapping[str, str]) -> _Claim:
    (axes,) = _sizes(path, _need(path, fields, "ndims"), 1)
    if axes not in {2, 3}:
        raise ReadError(f"{path.name} has {axes} dimensions; choose one volume of it.")
    kind = _need(path, fields, "elementtype").upper().removesuffix("_ARRAY")
    if kind not in _META_BITS:
        raise _damaged(path, f'the voxel type "{kind[:40]}"')
    (components,) = _sizes(path, fields.get("elementnumberofchannels", "1"), 1)
    for name in ("elementspacing", "elementsize"):
        if name in fields:
            _positive(path, _numbers(path, fields[name], axes))
    for name in ("offset", "position", "origin", "centerofrotation"):
        if name in fields:
            _numbers(path, fields[name], axes)
    matrices = [
        fields[name] for name in ("transformmatrix", "rotation", "orientation") if name in fields
    ]
    for matrix in matrices:
        _numbers(path, matrix, axes * axes)
    packed = fields.get("compresseddata", "false").lower()
    if packed not in {"true", "false"}:
        raise _damaged(path, f'CompressedData = "{packed[:20]}"')
    sizes, stored = _sizes(path, _need(path, fields, "dimsize"), axes), None
    if packed == "true":
        (stored,) = _sizes(path, _need(path, fields, "compresseddatasize"), 1)
    return _Claim(sizes, components, _META_BITS[kind], stored is not None, bool(matrices), stored)


def _check(path: Path) -> _Claim:
    """Read the header and compare it with the bytes that follow it."""
    with path.open("rb") as file:
        block = file.read(_HEADER_BYTES)
    claim, start = (_nrrd if path.suffix.lower() == ".nrrd" else _meta)(path, block)
    shape = (*claim.sizes, claim.components)
    present = path.stat().st_size - start
    check_claim(path.name, shape, claim.bits, present, packed=claim.packed)
    if claim.components not in {1, 3} or (claim.components == 3 and claim.bits != 8):
        raise ReadError(
            f"{path.name} has {claim.components} values of {claim.bits} bits a voxel; save one "
            "value a voxel, or RGB of 8 bits."
        )
    if claim.packed:
        # SimpleITK makes an image of damaged zlib data, with whatever was in memory in its voxels.
        with path.open("rb") as file:
            file.seek(start)
            used = check_packed(file, path.name, math.prod(shape) * claim.bits // 8)
        if claim.stored not in {None, used}:
            raise _damaged(path, f"the compressed size {claim.stored} instead of {used}")
    return claim


def _load(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise ReadError(
            f"{path.name} needs SimpleITK to be read; install it: pip install SimpleITK."
        ) from None
    reader: Any = cast("Any", SimpleITK).ImageFileReader()
    # Named, so that the content of the file cannot choose another of ITK's readers.
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() == ".nrrd" else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
        return image, SimpleITK.GetArrayFromImage(image)
    except RuntimeError as error:
        if "alloc" in str(error).lower():
            raise MemoryError from error
        raise ReadError(
            f"{path.name} cannot be read as {path.suffix[1:].upper()}; the file is damaged."
        ) from error


def _affine(image: Any) -> NDArray[np.float64]:
    """Index (i, j, k) to RAS mm; SimpleITK's physical space is LPS."""
    axes = image.GetDimension()
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(axes, axes)
    affine[:axes, :axes] = direction * np.array(image.GetSpacing())
    affine[:axes, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def read_itk(path: Path) -> Volume:
    """Read a NRRD or MetaImage file that holds its own voxels; see `displayed` for its turn.

    To be called in the child of `read_sandboxed`: SimpleITK can crash on a damaged file.

    Parameters
    ----------
    path : Path
        Ends in ".nrrd", ".mha" or ".mhd"; ".nhdr" is refused with advice.

    Returns
    -------
    Volume
        Its grid is known when the header gives directions in a patient space; spacing is in mm.

    Raises
    ------
    ReadError
        When the file is damaged, points at another file, holds more than one volume or neither
        one value nor 8-bit RGB a voxel, or SimpleITK is not installed.
    """
    if path.suffix.lower() in DETACHED:
        raise _detached(path)
    claim = _check(path)
    image, loaded = _load(path)
    if image.GetSize() != claim.sizes or image.GetNumberOfComponentsPerPixel() != claim.components:
        raise _damaged(path, "sizes that can be understood in two ways")
    if len(claim.sizes) == 3:
        array = loaded.transpose(2, 1, 0, *range(3, loaded.ndim))
    else:
        array = loaded.swapaxes(0, 1)[:, :, None]
    try:
        volume = displayed(array, _affine(image), code=int(claim.patient), name=path.stem)
    except ImageError as error:
        raise ReadError(
            f"{path.name} has a geometry that cannot be used; repair its header."
        ) from error
    if claim.patient:
        return volume
    unplaced = "The file does not say how it lies in the patient."
    return replace(volume, warnings=(unplaced, *volume.warnings))
