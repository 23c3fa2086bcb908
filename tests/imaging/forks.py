"""Reading many files quickly: each in a fork that has the limits of the sandbox's child."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MIB = 2**20


class Outcome(NamedTuple):
    """What came of a file: the name of the result's type, or "died", and a text."""

    kind: str
    text: str


def memory(field: str) -> int:
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@contextmanager
def small() -> Iterator[None]:
    """This process never holds 64 MiB more than before."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < 64 * MIB


def read_each(paths: list[Path], memory: int = 6 * 2**30) -> dict[str, Outcome]:
    """Read each file in a fork of a process that has loaded the readers; by file name."""
    done = subprocess.run(
        [sys.executable, "-c", _READ_EACH, str(memory), *map(str, paths)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"},
        capture_output=True, check=True, text=True, timeout=120,
    )  # fmt: skip
    lines = [line.split("\t", 2) for line in done.stdout.split("\n") if line.startswith("@")]
    return {name[1:]: Outcome(kind, text) for name, kind, text in lines}


_READ_EACH = """
import os, sys
from pathlib import Path
import nibabel, PIL.Image, SimpleITK
PIL.Image.init()
import napari_medreasoner.imaging.readers.dicom.file
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
    except BaseException as error:
        return type(error).__name__, " ".join(str(error).split())

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
