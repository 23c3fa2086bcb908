"""The child that waits: one file each, gone with its parent, and never missed when it dies."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import read_image, read_sandboxed, warm_up
from napari_medreasoner.imaging.samples import sample_folder
from napari_medreasoner.imaging.sandbox import process
from napari_medreasoner.imaging.sandbox.spare import SPARE

elsewhere: set[int] = set()
PICTURE = sample_folder() / "fundus-optic-disc.png"


@pytest.fixture(autouse=True)
def warm() -> Iterator[None]:
    warm_up()
    yield
    SPARE.cool_down()
    assert waiting() is None
    assert not children()


def waiting() -> process.Child | None:
    return SPARE._child


def the_pid() -> int:
    child = waiting()
    assert child is not None
    return child.pid


def all_children() -> set[int]:
    """Child processes of this one, the dead ones not yet waited for included."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


@pytest.fixture(scope="module", autouse=True)
def others() -> None:
    """Processes that tests before these left running, as multiprocessing's helpers."""
    global elsewhere
    elsewhere = all_children()


def children() -> set[int]:
    return all_children() - elsewhere


def test_each_child_opens_one_file() -> None:
    seen = set()
    for _ in range(3):
        seen.add(the_pid())
        assert np.array_equal(read_sandboxed(PICTURE).array, read_image(PICTURE).array)
        assert children() == {the_pid()}
    assert len(seen) == 3


@pytest.mark.parametrize("name", ["a.nii", "a.png", "a.dcm"])
def test_a_file_makes_a_child_that_waited_import_no_reader(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no image")
    code = (
        "import sys; from pathlib import Path\n"
        "from napari_medreasoner.core.errors import ReadError\n"
        "from napari_medreasoner.imaging.readers.reader import read_image\n"
        "from napari_medreasoner.imaging.sandbox.child import import_readers\n"
        "import_readers(); before = set(sys.modules)\n"
        f"try: read_image(Path({str(tmp_path / name)!r}))\n"
        "except ReadError: print(set(sys.modules) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_warming_twice_starts_one_child() -> None:
    before = the_pid()
    warm_up()
    assert the_pid() == before
    assert children() == {before}


def test_a_child_killed_while_it_waits_is_not_missed() -> None:
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        killed = the_pid()
        os.kill(killed, number)  # whether it is dead by the time it is asked or not
        assert read_sandboxed(PICTURE).array.any()
        assert killed not in children()
    killed = the_pid()
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert read_sandboxed(PICTURE).array.any()
    assert killed not in children()


def test_a_file_that_kills_its_child_is_not_given_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "started"
    code = (
        "import os, signal, sys\n"
        f"note = os.open({str(note)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "sys.stdin.read() and os.write(note, b'x')\n"
        "os.write(1, b' '); os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    SPARE.cool_down()
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-S", "-c", code))
    warm_up()
    with pytest.raises(ReadError, match=r"crash .SIGSEGV"):
        read_sandboxed(tmp_path / "a.nii")
    assert note.read_bytes() == b"x"


def test_what_refuses_to_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SPARE.cool_down()
    code = "raise ImportError('no such library')"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-S", "-c", code))
    warm_up()
    with pytest.raises(ReadError, match="no such library"):
        read_sandboxed(tmp_path / "a.nii")
    monkeypatch.setattr(process, "COMMAND", ("no-such-interpreter",))
    SPARE.cool_down()
    warm_up()
    with pytest.raises(ReadError, match="no process can be started"):
        read_sandboxed(tmp_path / "a.nii")


def test_limits_hold_in_a_child_that_waited(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes((sample_folder() / "ct-left-kidney.nii.gz").read_bytes())
    with pytest.raises(ReadError):
        read_sandboxed(path)
    with pytest.raises(ReadError, match=r"needs more than 0\.05 GiB"):
        read_sandboxed(sample_folder() / "ct-left-kidney.nii.gz", memory=round(0.05 * 2**30))


def test_many_threads_at_once() -> None:
    truth = read_image(PICTURE).array
    right: list[bool] = []

    def work() -> None:
        right.append(np.array_equal(read_sandboxed(PICTURE).array, truth))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
    assert children() == {the_pid()}


@pytest.mark.parametrize("last", ["os._exit(0)", "os.kill(os.getpid(), 9)", "pass"])
def test_it_dies_with_its_parent(last: str) -> None:
    code = (
        "import os\n"
        "from napari_medreasoner.imaging import warm_up\n"
        "from napari_medreasoner.imaging.sandbox.spare import SPARE\n"
        f"warm_up(); print(SPARE._child.pid, flush=True); {last}\n"
    )
    command = (sys.executable, "-W", "error", "-c", code)
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr
    try:
        watch = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return  # gone already
    ended, _, _ = select.select([watch], [], [], 20)
    os.close(watch)
    assert ended
