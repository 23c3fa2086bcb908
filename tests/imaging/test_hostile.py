"""Files made to harm: each is a ReadError, quickly, and this process hardly grows."""

import gzip
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.itk import read_itk
from napari_medreasoner.imaging.readers.nifti import read_nifti
from napari_medreasoner.imaging.sandbox.parent import read_sandboxed

MIB = 2**20
SECONDS = 5.0
MUTANTS = 150

itk: Any = pytest.importorskip("SimpleITK")


def memory(field: str) -> int:
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@contextmanager
def quick_and_small() -> Iterator[None]:
    """Within `SECONDS`, and this process never holds 64 MiB more than before."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before, start = memory("VmRSS"), time.monotonic()
    yield
    assert time.monotonic() - start < SECONDS
    assert memory("VmHWM") - before < 64 * MIB


def nifti(**fields: Any) -> bytes:
    """A good file of 4 x 5 x 6 int16 voxels, but for these header fields."""
    image: Any = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.eye(4))
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


def nrrd(tail: bytes = bytes(range(60)), **fields: str) -> bytes:
    """A good file of 3 x 4 x 5 uint8 voxels, but for these fields."""
    good = {
        "type": "uint8", "dimension": "3", "space": "left-posterior-superior", "sizes": "3 4 5",
        "space_directions": "(1,0,0) (0,1,0) (0,0,2)", "encoding": "raw", "space_origin": "(0,0,0)",
    }  # fmt: skip
    lines = [f"{name.replace('_', ' ')}: {value}\n" for name, value in (good | fields).items()]
    return b"NRRD0004\n" + "".join(lines).encode() + b"\n" + tail


def mha(tail: bytes = bytes(range(60)), **fields: str) -> bytes:
    good = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "1 1 2",
        "DimSize": "3 4 5", "ElementType": "MET_UCHAR",
    }  # fmt: skip
    last = {"ElementDataFile": fields.pop("ElementDataFile", "LOCAL")}
    return "".join(f"{a} = {b}\n" for a, b in (good | fields | last).items()).encode() + tail


def packed_mha(voxels: bytes, **fields: str) -> bytes:
    tail = zlib.compress(voxels)
    return mha(tail, CompressedData="True", **{"CompressedDataSize": str(len(tail))} | fields)


def png(width: int, height: int) -> bytes:
    """A grey picture of zeros, one byte of file for a thousand of picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(1)
    row = bytes(width + 1)
    rows = b"".join(packer.compress(row) for _ in range(min(height, 4000))) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    return gzip.compress(bytes(size), 6)


class Gadget:
    """Runs a command when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


BIG = (3, 2047, 2047, 1000, 1, 1, 1, 1)
BOMB = (3, 1024, 1024, 500, 1, 1, 1, 1)


def bit_image() -> bytes:
    voxels = np.random.default_rng(3).integers(0, 999, (40, 50, 60)).astype(np.int16)
    made: bytes = nib.Nifti1Image(voxels, np.eye(4)).to_bytes()
    return made


FILES: dict[str, bytes] = {
    # Sizes and places
    "huge.nii": nifti(dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)),
    "huge.nii.gz": gzip.compress(nifti(dim=BIG)),
    "negative.nii": nifti(dim=(3, -4, 5, 6, 1, 1, 1, 1)),
    "zero.nii": nifti(dim=(3, 4, 0, 6, 1, 1, 1, 1)),
    "dims9.nii": nifti(dim=(9, 4, 5, 6, 1, 1, 1, 1)),
    "dims0.nii": nifti(dim=(0, 4, 5, 6, 1, 1, 1, 1)),
    "offset.nii": nifti(vox_offset=1e18),
    "offsetnan.nii": nifti(vox_offset=float("nan")),
    "offsetneg.nii": nifti(vox_offset=-352.0),
    "cut.nii": nifti()[:-1],
    "cuthead.nii": nifti()[:200],
    "cut.nii.gz": gzip.compress(nifti())[:-30],
    "nan.nii": nifti(pixdim=(1, float("nan"), 1, 1, 0, 0, 0, 0)),
    "infinite.nii": nifti(pixdim=(1, 1, float("inf"), 1, 0, 0, 0, 0)),
    "spacing0.nii": nifti(pixdim=(1, 1, 1, 0, 0, 0, 0, 0)),
    "spacingneg.nii": nifti(pixdim=(1, 1, -1, 1, 0, 0, 0, 0)),
    "sform.nii": nifti(srow_x=(float("nan"), 0, 0, 0)),
    "flat.nii": nifti(srow_x=(0.0, 0, 0, 0)),
    "type.nii": nifti(datatype=4242),
    "complex.nii": nifti(datatype=32, bitpix=64),
    "pair.nii": nifti(magic=b"ni1\0"),
    "head.nii": nifti(sizeof_hdr=349),
    "empty.nii": b"",
    "empty.nii.gz": b"",
    # Bombs
    "bomb.nii.gz": gzip.compress(nifti(dim=BOMB, datatype=16, bitpix=32)) + zeros(600 * MIB)[:10],
    "bomb.nrrd": nrrd(zeros(64 * MIB), sizes="1024 1024 1000", encoding="gzip"),
    "bomb.mha": packed_mha(bytes(64 * MIB), DimSize="1024 1024 1000"),
    "bomb.png": png(50_000, 50_000),
    "large.png": png(12_000, 12_000),
    # NRRD and MetaImage headers
    "huge.nrrd": nrrd(sizes="999999 999999 999999"),
    "negative.nrrd": nrrd(sizes="-3 4 5"),
    "zero.nrrd": nrrd(sizes="3 0 5"),
    "overflow.nrrd": nrrd(sizes="4294967296 4294967296 4294967296"),
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
    "zipcut.mha": packed_mha(bytes(60), CompressedDataSize="9"),
    "zipfew.mha": packed_mha(bytes(59)),
    "zipmany.nii.gz": gzip.compress(nifti() + bytes(9 * MIB)),
    "crc.nii.gz": gzip.compress(bit_image())[:-6] + bytes(6),
    "dims.mha": mha(NDims="99"),
    "empty.mha": b"",
    # Pictures and files of another kind
    "cut.png": png(64, 64)[:-60],
    "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "svg.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "elf.tif": b"\x7fELF" + bytes(100),
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def batch(paths: list[Path], memory: int = 6 * 2**30) -> dict[str, str]:
    """Read each file in a fork under the child's limits; what came of each, by file name."""
    done = subprocess.run(
        [sys.executable, "-c", BATCH, str(memory), *map(str, paths)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"},
        capture_output=True, check=True, text=True, timeout=120,
    )  # fmt: skip
    lines = [line.split("\t", 2) for line in done.stdout.split("\n") if line.startswith("@")]
    return {name[1:]: f"{kind}\t{text}" for name, kind, text in lines}


BATCH = """
import os, sys, warnings
from pathlib import Path
import nibabel, PIL.Image, SimpleITK
PIL.Image.init()
from napari_medreasoner.imaging.sandbox.child import confine
from napari_medreasoner.imaging import Volume, read_image
from napari_medreasoner.core.errors import ReadError

def attempt(path):
    try:
        volume = read_image(path)
        assert volume.array.size and volume.grid.affine.shape == (4, 4)
        return "Volume", str(volume.array.shape)
    except ReadError as error:
        return "ReadError", " ".join(str(error).split())
    except MemoryError as error:
        return "Memory", ""

out = os.dup(1)
os.dup2(2, 1)
for name in sys.argv[2:]:
    path = Path(name)
    pid = os.fork()
    if not pid:
        confine(int(sys.argv[1]), 9)
        kind, text = attempt(path)
        os.write(out, f"@{path.name}\\t{kind}\\t{text}\\n".encode())
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        os.write(out, f"@{path.name}\\tdied\\t{os.waitstatus_to_exitcode(status)}\\n".encode())
"""


def test_every_hostile_file_is_refused_within_the_limits(hostile: Path) -> None:
    with quick_and_small():
        results = batch([hostile / name for name in FILES])
    assert len(results) == len(FILES)
    accepted = {name: text for name, text in results.items() if not text.startswith("ReadError")}
    assert not accepted
    for name, text in results.items():
        assert text.startswith(f"ReadError\t{name} ")
        assert text.endswith(".")


@pytest.mark.parametrize("name", [name for name in FILES if "bomb" in name or "huge" in name])
def test_bombs_are_refused_in_little_memory(hostile: Path, name: str) -> None:
    with quick_and_small(), pytest.raises(ReadError, match=name) as caught:
        read_sandboxed(hostile / name, memory=2**30)
    assert "memory" not in str(caught.value)  # seen in the header, not by running out


def test_stream_longer_than_claimed_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(nrrd(gzip.compress(bytes(256 * MIB), 1), encoding="gzip"))
    with quick_and_small(), pytest.raises(ReadError, match="more voxels than it says"):
        read_sandboxed(path, memory=2**30)


def test_one_wrong_bit_in_compressed_voxels_is_found(tmp_path: Path) -> None:
    voxels = np.random.default_rng(3).integers(0, 256, 60, dtype=np.uint8).tobytes()
    files = {
        "a.nrrd": nrrd(gzip.compress(voxels), encoding="gzip"),
        "a.mha": packed_mha(voxels),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert read_itk(tmp_path / name).array.tobytes() == voxels
        for bit in range(8 * 40, 8 * 60, 3):
            flipped = bytearray(data)
            flipped[-(bit // 8)] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(flipped)
            with pytest.raises(ReadError, match=name):
                read_itk(tmp_path / name)


CANARY = bytes(range(60))
"""As many bytes as the image needs, so that reading it would succeed."""


def detached(target: str) -> dict[str, bytes]:
    head = nrrd(b"")[:-1]
    local = mha(b"")
    meta = local.replace(b"LOCAL", target.encode())
    name = target.encode()
    return {
        "1.mhd": meta, "2.mhd": local + CANARY, "3.mha": meta, "4.mha": meta.replace(b" = ", b"="),
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
    }  # fmt: skip


@pytest.mark.parametrize("target", ["canary1.raw", "absolute", "/etc/passwd"])
def test_header_that_points_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    canary = tmp_path / "canary1.raw"
    canary.write_bytes(CANARY)
    os.utime(canary, (1, 2))  # an old access time, which reading makes new
    before = canary.stat().st_atime_ns
    for name, data in detached(str(canary) if target == "absolute" else target).items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ReadError, match=name):
            read_itk(path)
    assert canary.stat().st_atime_ns == before


def test_canary_would_have_been_read(tmp_path: Path) -> None:
    # The control: SimpleITK alone follows such headers, so the test above tests something.
    (tmp_path / "canary1.raw").write_bytes(CANARY)
    for name in ("3.mha", "14.nrrd"):
        (tmp_path / name).write_bytes(detached("canary1.raw")[name])
        image = itk.ReadImage(str(tmp_path / name))
        assert itk.GetArrayFromImage(image).tobytes() == CANARY


def test_pickles_under_image_names_are_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    gadget = pickle.dumps(Gadget(canary))
    array = io.BytesIO()
    np.save(array, np.array([Gadget(canary)], dtype=object), allow_pickle=True)
    paths = []
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif", ".npy"):
        for number, data in enumerate((gadget, array.getvalue())):
            paths.append(tmp_path / f"{number}{suffix}")
            paths[-1].write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    results = batch(paths)
    assert {text.split("\t")[0] for text in results.values()} == {"ReadError"}
    assert not canary.exists()


def test_checks_do_not_refuse_what_is_good(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    # A label map of a whole CT, all but empty: 400:1.
    image: Any = nib.Nifti1Image(np.zeros((512, 512, 100), np.uint8), np.diag([1, 1, 2, 1.0]))
    path.write_bytes(gzip.compress(image.to_bytes(), 6))
    assert read_nifti(path).array.shape == (100, 512, 512)
    wide: Any = nib.Nifti2Image(np.zeros((3, 4, 5), np.float32), np.diag([1, 1, 2, 1.0]))
    nib.save(wide, tmp_path / "b.nii")
    assert read_nifti(tmp_path / "b.nii").array.shape == (5, 4, 3)
    big = image.header.as_byteswapped(">")
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), ">i2"), np.eye(4), big), tmp_path / "c.nii")
    assert read_sandboxed(tmp_path / "c.nii").array.dtype.isnative


def seeds(kind: str) -> bytes:
    voxels = np.random.default_rng(3).integers(0, 200, 60).astype(np.uint8).tobytes()
    picture = io.BytesIO()
    Image.fromarray(np.frombuffer(voxels, np.uint8).reshape(6, 10)).save(picture, "PNG")
    return {
        "nii": nifti(), "nii.gz": gzip.compress(nifti()), "png": picture.getvalue(),
        "nrrd": nrrd(gzip.compress(voxels), encoding="gzip"),
        "mha": packed_mha(voxels),
    }[kind]  # fmt: skip


def mutant(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or overwrite: up to four times."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(max(len(made), 1))
        match rng.randrange(5):
            case 0:
                made[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                made[place:] = b""
            case 2:
                made[place:place] = made[place : place + rng.randint(1, 40)]
            case 3:
                word = rng.choice(
                    [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"-1", b"nan", b"9" * 9]
                )
                made[place : place + len(word)] = word
            case _:
                made[place : place + rng.randint(1, 9)] = b""
    return bytes(made)


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "nrrd", "mha", "png"])
def test_mutants_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    rng = random.Random(f"{kind} 1")  # noqa: S311 - seeded on purpose
    seed = seeds(kind)
    paths = [tmp_path / f"{number}.{kind}" for number in range(MUTANTS)]
    for path in paths:
        path.write_bytes(mutant(seed, rng))
    results = batch(paths)
    assert len(results) == MUTANTS
    bad = {
        name: text
        for name, text in results.items()
        if text.split("\t")[0] not in {"Volume", "ReadError"}
    }
    assert not bad
    refused = sum(text.startswith("ReadError") for text in results.values())
    assert refused > MUTANTS // 5
