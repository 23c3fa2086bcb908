import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).parents[2]
HEAVY = ("napari", "qtpy", "PyQt6", "torch", "fastapi", "skimage", "sklearn", "transformers")


def test_the_manifest_is_one_file_and_its_imports_work() -> None:
    shipped = PluginManifest.from_distribution("napari-medreasoner")
    assert shipped == PluginManifest.from_file(ROOT / "napari.yaml")
    shipped.validate_imports()


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("napari_medreasoner.core.protocol", HEAVY),
        ("napari_medreasoner.client.client", HEAVY),
        ("napari_medreasoner.imaging", HEAVY),
        ("napari_medreasoner.gui.widget", ("torch", "fastapi", "sklearn")),
        ("napari_medreasoner.server.app", ("torch", "napari", "qtpy", "transformers")),
        ("napari_medreasoner.engines.registry", HEAVY),
        ("medreasoner_trainer", HEAVY),
    ],
)
def test_imports_stay_light(module: str, light: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print(*(set({light!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_base_install_names_neither_torch_nor_qt() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    backend = project["optional-dependencies"]["backend"]
    for requirement in project["dependencies"] + backend:
        name = requirement.split(">")[0].split("[")[0].strip()
        assert name.lower() not in {"torch", "pyqt5", "pyqt6", "pyside2", "pyside6", "transformers"}
        assert "[" not in requirement


def test_the_wheel_holds_both_packages_the_manifest_and_the_samples(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "napari_medreasoner",
        "medreasoner_trainer",
    }
    weights = "engines/embedded/weights/unet"
    for name in (
        *("napari.yaml", "py.typed", "sample_data/cases.json", "core/templates/direct.toml"),
        *(f"{weights}.safetensors", f"{weights}.onnx", f"{weights}.md"),
    ):
        assert f"napari_medreasoner/{name}" in names


def test_version_and_changelog_agree() -> None:
    from napari_medreasoner import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_modules_stay_short() -> None:
    for file in [*ROOT.glob("napari_medreasoner/**/*.py"), *ROOT.glob("trainer/**/*.py")]:
        assert len(file.read_text().splitlines()) <= 600, file
