import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging import Volume, write_mask
from napari_medreasoner.imaging.atomic import replace_atomically, write_text
from napari_medreasoner.imaging.volume import plain_grid


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


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="choose another folder"):
        write_text(tmp_path / "none" / "x.txt", "x")


@pytest.fixture
def small_files() -> Iterator[None]:
    """A disk that is full after 4 kB, as far as this process can tell."""
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old_limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_handler)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_told_and_the_old_mask_survives(tmp_path: Path) -> None:
    target = tmp_path / "mask.nii"
    target.write_bytes(b"the old mask")
    volume = Volume(np.zeros((200, 200), np.uint8), plain_grid((200, 200)), "x")
    with pytest.raises(ExportError, match="unchanged"):
        write_mask(target, np.ones((200, 200), bool), volume)
    assert target.read_bytes() == b"the old mask"
    assert list(tmp_path.iterdir()) == [target]
