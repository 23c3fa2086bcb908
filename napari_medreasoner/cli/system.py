"""Libraries and programs outside Python that a Qt window needs, and how to get them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from napari_medreasoner.core.errors import SettingsError

__all__ = ["install_packages", "missing_packages", "screen_command"]

_LIBRARIES: Final = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libOpenGL.so.0": "libopengl0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
"""Shared library to the Debian package that holds it: what Qt 6 on X11 and software GL load."""

_PROGRAMS: Final = {"Xvfb": "xvfb", "xvfb-run": "xvfb", "xauth": "xauth"}
_SOFTWARE_GL: Final = "libgl1-mesa-dri"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _has_software_gl() -> bool:
    folders = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"))
    patterns = ("*/dri/swrast_dri.so", "dri/swrast_dri.so", "*/libgallium*.so", "libgallium*.so")
    return any(any(folder.glob(pattern)) for folder in folders for pattern in patterns)


def missing_packages() -> list[str]:
    """Debian names of what a napari window under Xvfb needs and this machine lacks, sorted.

    Nothing is needed elsewhere than on Linux.
    """
    if sys.platform != "linux":
        return []
    missing = {package for library, package in _LIBRARIES.items() if not _loads(library)}
    missing |= {package for program, package in _PROGRAMS.items() if not shutil.which(program)}
    if not _has_software_gl():
        missing.add(_SOFTWARE_GL)
    return sorted(missing)


def install_packages(packages: list[str]) -> None:
    """Install Debian packages.

    Raises
    ------
    SettingsError
        When this is not a root user's Debian-like machine, or apt fails; the sentence names
        the packages.
    """
    if not packages:
        return
    wish = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SettingsError(
            f"System packages are missing; install them with: sudo apt-get install {wish}"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    steps = (["update"], ["install", "-y", "--no-install-recommends", *packages])
    for step in steps:
        done = subprocess.run(  # noqa: S603 - fixed program, fixed package names
            ["apt-get", "-qq", *step],  # noqa: S607
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise SettingsError(f"apt-get could not install {wish} ({last}); install them by hand.")


def screen_command() -> list[str]:
    """Words to put before a command so that it has a display; none where there is one."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return []
    return ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]
