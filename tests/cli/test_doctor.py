import re
import shutil
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from napari_medreasoner.cli import doctor, system
from napari_medreasoner.cli.app import app
from napari_medreasoner.core.errors import SettingsError


def test_the_doctor_reports_every_part_and_finds_this_machine_healthy() -> None:
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.stdout
    for name in ("napari", "Qt", "OpenGL", "torch", "GPU", "loopback port", "segmenter classical"):
        assert re.search(rf"ok\s+{name}: \S", done.stdout), name


def test_every_fault_comes_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "missing_packages", lambda: ["xvfb"])
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    faults = re.findall(r"fault (.+?): ", done.stdout)
    assert faults == ["server", "window libraries"]
    assert re.findall(r"fix: (.+)", done.stdout) == [
        "pip install 'napari-medreasoner[backend]'",
        "sudo apt-get install xvfb",
    ]


@pytest.mark.parametrize(
    ("uid", "which"),
    [(1000, shutil.which), (0, lambda name: None)],
    ids=["not root", "no apt"],
)
def test_without_root_the_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, uid: int, which: Callable[[str], str | None]
) -> None:
    monkeypatch.setattr(system.os, "geteuid", lambda: uid)
    monkeypatch.setattr(system.shutil, "which", which)
    with pytest.raises(SettingsError, match="apt-get install libegl1 xvfb"):
        system.install_packages(["libegl1", "xvfb"])


def test_nothing_missing_needs_nobody() -> None:
    assert system.missing_packages() == []
    system.install_packages([])
