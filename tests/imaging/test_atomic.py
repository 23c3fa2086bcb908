import subprocess
import sys
from pathlib import Path

import pytest

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.writers.atomic import replace_atomically, write_text


def test_a_failure_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_text(target, "old")

    def fail() -> None:
        with replace_atomically(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_is_as_open_as_the_user_wants(tmp_path: Path) -> None:
    write_text(tmp_path / "ours.json", "x")
    (tmp_path / "plain.json").write_text("x")
    assert (tmp_path / "ours.json").stat().st_mode == (tmp_path / "plain.json").stat().st_mode


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose another folder"):
        write_text(tmp_path / "none" / "x.txt", "x")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging import Volume, Segment, write_segments
from napari_medreasoner.imaging.volume import plain_grid

# No file may grow beyond 4 kB: a full disk, as far as this process can tell.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
volume = Volume(np.zeros((200, 200), np.uint8), plain_grid((200, 200)), "x")
try:
    write_segments(Path(sys.argv[1]), [Segment(np.ones((200, 200), bool))], volume)
except ExportError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_told_and_the_old_mask_survives(tmp_path: Path) -> None:
    target = tmp_path / "mask.nii"
    target.write_bytes(b"the old mask")
    # A process of its own: the limit would hold for pytest's own output too.
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("what was there before is unchanged.")
    assert done.stderr.count("\n") == 1
    assert target.read_bytes() == b"the old mask"
    assert list(tmp_path.iterdir()) == [target]
