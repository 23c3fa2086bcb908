import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging import Volume, read_image
from napari_medreasoner.imaging.sandbox import list_parts_sandboxed, process, read_sandboxed
from napari_medreasoner.imaging.sandbox.messages import Header

SHARED = os.environ.get("MEDREASONER_SHARED")
OBLIQUE = np.array(
    [[1.4, -0.5, 0.1, -11], [0.5, 1.9, 0.2, 7.5], [0, 0.3, 3.4, 300.25], [0, 0, 0, 1]]
)


def same(one: Volume, other: Volume) -> None:
    assert one.array.dtype == other.array.dtype.newbyteorder("=")
    assert np.array_equal(one.array, other.array, equal_nan=one.array.dtype.kind == "f")
    for field in ("name", "modality", "window", "inverted", "warnings", "frames"):
        assert getattr(one, field) == getattr(other, field)
    assert np.array_equal(one.grid.affine, other.grid.affine)
    assert (one.grid.shape, one.grid.known) == (other.grid.shape, other.grid.known)
    assert (one.source is None) == (other.source is None)
    if one.source and other.source:
        assert np.array_equal(one.source.affine, other.source.affine)
        for field in ("shape", "code", "axes", "flips"):
            assert getattr(one.source, field) == getattr(other.source, field)


def make(path: Path) -> Path:
    array = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    if path.suffix == ".png":
        Image.fromarray(array[0].astype(np.uint8)).save(path)
    elif path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, OBLIQUE), path)
    else:
        itk: Any = pytest.importorskip("SimpleITK")
        itk.WriteImage(itk.GetImageFromArray(array), str(path))
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.png", "a.nrrd", "a.mha"])
def test_child_reads_what_this_process_reads(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name)
    volume = read_sandboxed(path)
    same(volume, read_image(path))
    volume.array[...] = 0  # the caller may work in it


def test_awkward_names_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-b \u00e4.nii", "two\nlines.nii"):
        make(tmp_path / "a.nii").rename(name)
        assert read_sandboxed(Path(name)).array.shape == (7, 6, 5)
    make(tmp_path / "a.nii").rename(os.fsdecode(b"\xff.nii"))
    assert read_sandboxed(Path(os.fsdecode(b"\xff.nii"))).name == "?"
    Path(os.fsdecode(b"\xff.nii")).write_bytes(b"")
    with pytest.raises(ReadError, match=r"^\?.nii cannot be read"):
        read_sandboxed(Path(os.fsdecode(b"\xff.nii")))


@pytest.mark.skipif(SHARED is None, reason="MEDREASONER_SHARED names no folder of real files")
def test_real_files_are_equal() -> None:
    folder = Path(SHARED or "") / "data" / "volumes"
    files = [*sorted(folder.glob("orientation/*.nii.gz"))[:3], *sorted(folder.glob("*/*.nrrd"))]
    files += sorted(folder.glob("ts_*/example_?t*.nii.gz"))
    assert len(files) >= 8
    for path in files:
        same(read_sandboxed(path), read_image(path))


def test_window_inversion_and_warnings_travel() -> None:
    volume = Volume(
        np.zeros((4, 5), np.float32), Grid((1, 4, 5), np.eye(4), known=False), "n", "CT",
        window=(-160.0, 240.1), inverted=True, warnings=("One.", "Two."),
    )  # fmt: skip
    back = Header.model_validate_json(Header.of(volume).model_dump_json()).volume(volume.array)
    same(volume, back)
    same(
        replace(volume, array=np.zeros((1, 4, 5), np.float32)),
        replace(back, array=back.array[None]),
    )


CRASHERS = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "crash .SIGSEGV",
    "import os; os.abort()": "crash .SIGABRT",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "more than 6 GiB",
    'import os; os.write(2, b"what():  std::bad_alloc\\n"); os.abort()': "more than 6 GiB",
    "raise MemoryError": "more than 6 GiB",
    'raise ImportError("no such \\x1b[31mthing")': r"ended with: ImportError: no such \[31mthing",
    "import os; os._exit(3)": "no message",
    "import time; time.sleep(60)": "longer than 1 s",
    "import os, time; os.close(0); os.close(1); os.close(2); time.sleep(60)": "longer than 1 s",
    'while True: print("garbage" * 1000)': "nonsense",
    'import sys\nwhile True: print("x" * 9999, file=sys.stderr)': "longer than 1 s",
    'import os\nwhile True:\n  try: os.write(1, b"x" * 99999)\n  except OSError: pass': "nonsense",
    "import os, time; os.fork(); time.sleep(60)": "longer than 1 s",
    "import os, time; os.fork() or time.sleep(60)": "longer than 1 s",
    'print("{}")': "nonsense",
    'print("[" * 100000)': "nonsense",
    "pass": "nonsense",
    'print(\'{"error": "a\\\\nb"}\')': "^a b$",
}


@pytest.mark.parametrize(("code", "reason"), CRASHERS.items())
def test_whatever_the_child_does_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-S", "-c", code))
    start = time.monotonic()
    with pytest.raises(ReadError, match=reason):
        read_sandboxed(make(tmp_path / "a.nii"), timeout=1 if "longer" in reason else 20)
    assert time.monotonic() - start < 5


GOOD: dict[str, Any] = {
    "dtype": "uint8", "shape": [2, 3, 4], "grid_shape": [2, 3, 4], "affine": np.eye(4).tolist(),
    "known": True, "name": "a", "modality": "", "window": None, "inverted": False,
    "warnings": [], "frames": [],
    "source": {
        "shape": [4, 3, 2], "affine": np.eye(4).tolist(), "code": 1, "axes": [0, 1, 2],
        "flips": [False] * 3,
    },
}  # fmt: skip
LIES: list[dict[str, Any]] = [
    {"frames": [["a", 0]]}, {"frames": [["a", -1]] * 2},
    {"dtype": "object"}, {"dtype": "O"}, {"dtype": "uint16"}, {"dtype": "complex64"},
    {"dtype": ">u1"}, {"shape": [2, 3, 5]}, {"shape": [-2, -3, 4]}, {"shape": [0, 3, 4]},
    {"shape": [2, 12]}, {"shape": [24]}, {"shape": [2**40, 2**40, 2**40]}, {"shape": []},
    {"grid_shape": [2, 3, 5]}, {"affine": np.zeros((4, 4)).tolist()}, {"affine": [[1]]},
    {"affine": [[float("inf")] * 4] * 4}, {"affine": [[float("nan")] * 4] * 4},
    {"window": [0, float("nan")]}, {"window": [1]}, {"name": "x" * 2000}, {"name": 3},
    {"warnings": ["x"] * 101}, {"extra": 1}, {"known": "maybe"},
    {"source": GOOD["source"] | {"axes": [0, 0, 1]}},
    {"source": GOOD["source"] | {"shape": [2, 3, 4]}},
    {"source": GOOD["source"] | {"affine": [[float("inf")] * 4] * 4}},
]  # fmt: skip


def answering(header: dict[str, Any], size: int = 24) -> tuple[str, ...]:
    """A child that writes `size` bytes and says this of them."""
    code = (
        "import json, os, sys; request = json.load(sys.stdin); "
        f"os.write(request['voxels'], bytes({size})); print({json.dumps(header)!r})"
    )
    return sys.executable, "-P", "-S", "-c", code


def test_header_that_is_true_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", answering(GOOD))
    assert read_sandboxed(tmp_path / "a.nii").array.shape == (2, 3, 4)


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_header_that_lies_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: dict[str, Any]
) -> None:
    monkeypatch.setattr(process, "COMMAND", answering(GOOD | lie))
    with pytest.raises(ReadError, match="nonsense"):
        read_sandboxed(tmp_path / "a.nii")


def test_a_yes_or_no_that_is_neither_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = json.dumps(GOOD | {"dtype": "bool"})
    code = (
        "import json, os, sys; request = json.load(sys.stdin); "
        f"os.write(request['voxels'], b'\\2' * 24); print({said!r})"
    )
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-S", "-c", code))
    with pytest.raises(ReadError, match="nonsense"):
        read_sandboxed(tmp_path / "a.nii")


PART: dict[str, Any] = {
    "description": "a", "modality": "CT", "slices": 3, "problem": "", "picture": [2, 4, 3],
}  # fmt: skip
UNTRUE: list[dict[str, Any]] = [
    {"parts": []}, GOOD, {"parts": [PART], "extra": 1},
    *({"parts": [PART | change]} for change in (
        {"slices": -1}, {"slices": "many"}, {"description": "x" * 2000}, {"extra": 1},
        {"picture": [97, 4, 3]}, {"picture": [2, 0, 3]}, {"picture": [2, 4, 4]},
        {"picture": [2, 4]}, {"picture": [2, 3, 3]}, {"picture": [2, 5, 3]}, {"picture": None},
        {"problem": "x" * 5000}, {"number": 2},
    )),
]  # fmt: skip


def test_listing_that_is_true_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = [PART, PART | {"picture": None, "problem": "No."}]
    monkeypatch.setattr(process, "COMMAND", answering({"parts": two}))
    first, second = list_parts_sandboxed(tmp_path)
    assert (first.number, first.slices, first.description) == (1, 3, "a")
    assert first.thumbnail is not None
    assert first.thumbnail.shape == (2, 4, 3)
    assert (second.number, second.thumbnail, second.problem) == (2, None, "No.")


def test_listing_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = PART | {"picture": None}
    for count, taken in ((10_000, True), (10_001, False)):
        code = f"import json; print(json.dumps({{'parts': [{part!r}] * {count}}}))"
        monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-S", "-c", code))
        if taken:
            assert len(list_parts_sandboxed(tmp_path)) == count
        else:
            with pytest.raises(ReadError, match="nonsense"):
                list_parts_sandboxed(tmp_path)


@pytest.mark.parametrize("lie", UNTRUE, ids=lambda lie: str(lie)[:70])
def test_listing_that_lies_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: dict[str, Any]
) -> None:
    monkeypatch.setattr(process, "COMMAND", answering(lie))
    with pytest.raises(ReadError, match="nonsense"):
        list_parts_sandboxed(tmp_path)


@pytest.mark.parametrize("size", [0, 23, 25])
def test_other_number_of_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(process, "COMMAND", answering(GOOD, size))
    with pytest.raises(ReadError, match="nonsense"):
        read_sandboxed(tmp_path / "a.nii")


def test_a_file_larger_than_the_memory_given_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.eye(4)).header
    header.set_data_shape((512, 512, 2048))
    header["vox_offset"] = 352
    path.write_bytes(header.binaryblock + bytes(4))
    os.truncate(path, 352 + 2 * 512 * 512 * 2048)
    with pytest.raises(ReadError, match=r"^a.nii needs more than 0.6\d* GiB"):
        read_sandboxed(path, memory=640 * 2**20)


def test_child_gets_no_secrets_and_no_name_on_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDREASONER_TOKEN", "canary")
    code = "import os, sys; print('canary' in str(os.environ), sys.argv, file=sys.stderr); 1 / 0"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-c", code))
    assert "MEDREASONER_TOKEN" not in process.environment()
    with pytest.raises(ReadError, match="ZeroDivisionError"):
        read_sandboxed(tmp_path / "a.nii")
    assert all("a.nii" not in word for word in process.COMMAND)


def test_interrupt_ends_the_child_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = str(tmp_path / "pid")
    code = f"import os, time; open({note!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-S", "-c", code))
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    # A shell that started the tests in the background has interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            read_sandboxed(tmp_path / "a.nii")
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 3
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_limits_hold_in_the_child(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from napari_medreasoner.imaging.sandbox.child import confine\n"
        "confine(2**30, 5)\n"
        "try: bytearray(2**30)\n"
        "except MemoryError: print('memory')\n"
        f"try: open({str(tmp_path / 'x')!r}, 'wb', 0).write(b'x')\n"
        "except OSError: print('file')\n"
        "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["memory", "file", "(0, 0)"]


def test_no_process_to_be_had_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", ("no-such-interpreter",))
    with pytest.raises(ReadError, match=r"^a\.nii cannot be opened, since no process"):
        read_sandboxed(tmp_path / "a.nii")


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nii")
    held = read_sandboxed(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        read_sandboxed(path)
        with pytest.raises(ReadError):
            read_sandboxed(tmp_path / "none.nii")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert held.array.any()
