"""`medreasoner doctor`: what is installed, what works, and a fix for what does not."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

import typer
from rich.console import Console

from napari_medreasoner.cli.system import install_packages, missing_packages, screen_command
from napari_medreasoner.core.errors import MedReasonerError
from napari_medreasoner.engines.models.catalogue import catalogue
from napari_medreasoner.engines.models.folder import faults_of, folder_of
from napari_medreasoner.engines.registry import (
    create_reasoner,
    create_segmenter,
    reasoner_names,
    segmenter_names,
)

__all__ = ["doctor", "install_system"]

_NAPARI_TIMEOUT_S: Final = 90
_OPTIONAL: Final = ("torch", "transformers", "sam2", "flash-attn", "vllm", "openai", "trl")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `fix` is empty when all is well."""

    name: str
    detail: str
    fix: str = ""


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> Iterator[Check]:
    yield Check("system", f"{platform.platform()}, Python {platform.python_version()}")
    for package in ("napari-medreasoner", "napari", "numpy", "nibabel", "httpx"):
        yield Check(package, _installed(package) or "missing")
    for package in _OPTIONAL:
        found = _installed(package)
        yield Check(package, found or "not installed; only the real engines and training need it")


def _backend() -> Iterator[Check]:
    for kind, names, create in (
        ("reasoner", reasoner_names(), create_reasoner),
        ("segmenter", segmenter_names(), create_segmenter),
    ):
        for name in sorted(set(names) - set(catalogue())):
            yield _engine(kind, name, create)
    yield from _models()
    missing = [package for package in ("fastapi", "uvicorn") if find_spec(package) is None]
    fix = "pip install 'napari-medreasoner[backend]'" if missing else ""
    yield Check("server", f"lacks {', '.join(missing)}" if missing else "installed", fix)


def _engine(kind: str, name: str, create: Callable[[str], object]) -> Check:
    try:
        create(name)
    except MedReasonerError as error:
        return Check(f"{kind} {name}", "cannot be built", str(error))
    return Check(f"{kind} {name}", "ready")


def _models() -> Iterator[Check]:
    folders = {card.name: folder_of(card, None) for card in catalogue().values()}
    here = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not here:
        yield Check("models", "none on this machine; `medreasoner models list` names what there is")
    for name, folder in here.items():
        fault = next(iter(faults_of(folder, hashes=False)), "")
        fix = f"medreasoner models pull {name}" if fault else ""
        yield Check(f"model {name}", fault or str(folder), fix)


def _port() -> Iterator[Check]:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            yield Check("loopback port", "free ones can be opened")
    except OSError as error:
        fix = "allow this user to open ports on 127.0.0.1 (firewall, container or sandbox rules)"
        yield Check("loopback port", f"cannot be opened: {error.strerror}", fix)


def _gpu() -> Iterator[Check]:
    if find_spec("torch") is None:
        yield Check("GPU", "not asked for: torch is not installed")
        return
    code = (
        "import torch; c = torch.cuda; "
        "print(f'{c.get_device_name()}, CUDA {torch.version.cuda}, cuDNN "
        "{torch.backends.cudnn.version()}' if c.is_available() else '')"
    )
    done = subprocess.run(  # noqa: S603 - fixed code; a child, as a broken CUDA can abort
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        yield Check("GPU", last, "reinstall torch for this machine's driver")
    else:
        yield Check("GPU", done.stdout.strip() or "none seen by torch; engines run on the CPU")


def _window() -> Iterator[Check]:
    """Qt and OpenGL as napari itself reports them, in a child: a bad Qt aborts the process."""
    missing = missing_packages()
    if missing:
        fix = f"sudo apt-get install {' '.join(missing)}"
        yield Check("window libraries", f"{len(missing)} packages missing", fix)
        return
    yield Check("window libraries", "complete")
    command = [*screen_command(), sys.executable, "-m", "napari", "--info"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed command
            command, capture_output=True, text=True, check=False, timeout=_NAPARI_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        yield Check("napari", "gave no answer", "start napari by hand and read its messages")
        return
    lines = dict(
        line.strip(" -").split(": ", 1) for line in done.stdout.splitlines() if ": " in line
    )
    for name, key in (("Qt", "Qt"), ("OpenGL", "GL version")):
        fix = (
            "" if key in lines else "pip install 'napari[all]', and check the display and GL driver"
        )
        yield Check(name, lines.get(key, "not found").strip(), fix)


def doctor() -> None:
    """Say what is installed and what works, with a fix per fault; exit 1 if there is a fault."""
    console = Console()
    faults = 0
    for group in (_versions, _backend, _port, _gpu, _window):
        for check in group():
            mark = "[red]fault[/]" if check.fix else "[green]ok[/]   "
            console.print(f"{mark} {check.name}: {check.detail}", highlight=False)
            if check.fix:
                faults += 1
                console.print(f"      fix: {check.fix}", highlight=False, markup=False)
    if faults:
        raise typer.Exit(1)


def install_system() -> None:
    """Install the system packages that a window needs (root, apt), else name them; exit 2."""
    install_packages(missing_packages())
