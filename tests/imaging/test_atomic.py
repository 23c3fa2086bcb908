import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.kills import kill_during_export
from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.writers.atomic import replace_atomically, write_text
from tests.imaging.dicom_series import series


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


def test_what_reads_back_otherwise_is_not_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.json"
    write_text(target, "old")
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: whole(path, data[:-1]))
    with pytest.raises(ExportError, match=r"report\.json read back differs"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert [*tmp_path.iterdir()] == [target]


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
from napari_medreasoner.imaging import Segment, read_image, write_image, write_segments

target, source = map(Path, sys.argv[1:])
volume = read_image(source)
# No file may grow beyond 4 kB: a full disk, as far as this process and its own can tell.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
noise = np.random.default_rng(0).random(volume.array.shape) < 0.5
try:
    if target.suffix == ".png":
        write_image(target, volume)
    else:
        write_segments(target, [Segment(noise)], volume)
except ExportError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz", "m.nrrd", "p.png", "s.dcm"])
def test_a_full_disk_is_told_and_the_old_file_survives(tmp_path: Path, name: str) -> None:
    source = tmp_path / "in"
    if name == "s.dcm":
        series(source, StudyInstanceUID="1.2.5")
    else:
        picture = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
        source = source.with_suffix(".png")
        Image.fromarray(picture).save(source)
    target = tmp_path / "out" / name
    target.parent.mkdir()
    target.write_bytes(b"the old one")
    # A process of its own: the limit would hold for pytest's own output too.
    # -B: compiled modules that the limit cuts short would stay.
    command = [sys.executable, "-B", "-W", "error", "-c", FULL_DISK, str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("what was there before is unchanged.")
    assert done.stderr.count("\n") == 1
    assert target.read_bytes() == b"the old one"
    assert list(target.parent.iterdir()) == [target]


def test_an_export_that_is_killed_leaves_the_old_file_or_the_new() -> None:
    kills = kill_during_export(9, seed=3)
    assert kills.old + kills.new == 9
    assert kills.other == kills.left == 0


def test_what_a_killed_export_left_is_swept_and_what_another_writes_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".medreasoner-0123456789abcdef.nii"
    left.write_bytes(b"half")
    (tmp_path / ".other").write_text("not ours")
    with replace_atomically(tmp_path / "slow.txt") as temporary:
        assert not left.exists()
        write_text(tmp_path / "quick.txt", "x")
        temporary.write_text("still here")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".other", "quick.txt", "slow.txt"]
    assert (tmp_path / "slow.txt").read_text() == "still here"
