import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from napari_medreasoner.cli import doctor, system
from napari_medreasoner.cli.app import app
from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.engines.models.card import ModelFile
from napari_medreasoner.engines.models.folder import ENVIRONMENT_VARIABLE, MANIFEST, Manifest


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


def test_a_damaged_model_is_a_fault_and_an_absent_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(doctor, "_window", lambda: iter(()))
    assert "ok    models: none" in CliRunner().invoke(app, ["doctor"]).stdout
    folder = tmp_path / "medsam2"
    folder.mkdir()
    lost = ModelFile(path="MedSAM2_latest.pt", size=5, sha256="0" * 64)
    (folder / MANIFEST).write_text(Manifest(files=(lost,)).model_dump_json())
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert re.findall(r"fault (.+?): ", done.stdout) == ["model medsam2"]
    assert re.findall(r"fix: (.+)", done.stdout) == ["medreasoner models pull medsam2"]


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
