"""Checkpoints that are whole or do not count.

A checkpoint's manifest, with the SHA-256 of every file, is written last and by rename. What has
none, or differs from it, was cut off while it was written: it is set aside, and the one before it
is taken.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.engines.models.folder import sha256_of
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = [
    "checkpoint_at",
    "checkpoints_in",
    "fault_of",
    "last_whole",
    "prune",
    "seal",
    "set_aside",
]

_MANIFEST: Final = "sha256.json"
_NAME: Final = re.compile(r"checkpoint-(\d+)")


def checkpoint_at(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / f"checkpoint-{step}"


def checkpoints_in(run: Path) -> dict[int, Path]:
    """Checkpoints by step, whole or not, in order."""
    found = {}
    for path in run.glob("checkpoint-*"):
        if name := _NAME.fullmatch(path.name):
            found[int(name[1])] = path
    return dict(sorted(found.items()))


def seal(checkpoint: Path) -> None:
    """Write the manifest of a folder that is complete.

    Raises
    ------
    ExportError
        When it cannot be written.
    """
    sums = {name: sha256_of(checkpoint / name) for name in _files(checkpoint)}
    write_text(checkpoint / _MANIFEST, json.dumps(sums, indent=1) + "\n")


def _files(checkpoint: Path) -> list[str]:
    return sorted(
        path.relative_to(checkpoint).as_posix()
        for path in checkpoint.rglob("*")
        if path.is_file() and path.name != _MANIFEST
    )


def fault_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, in a few words; empty when it is whole."""
    try:
        sums = json.loads((checkpoint / _MANIFEST).read_text(encoding="utf-8"))
    except OSError:
        return "it was not finished"
    except ValueError:
        return "its manifest is damaged"
    for name, expected in sums.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != expected:
            return f"{name} is damaged"
    return ""


def last_whole(run: Path) -> tuple[Path | None, dict[Path, str]]:
    """Find the newest checkpoint that is whole, and the faults of those after it."""
    faults: dict[Path, str] = {}
    for path in reversed(checkpoints_in(run).values()):
        fault = fault_of(path)
        if not fault:
            return path, faults
        faults[path] = fault
    return None, faults


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that nobody takes it for one; return where it is now.

    Raises
    ------
    ReadError
        When it cannot be renamed.
    """
    target = checkpoint.with_name(f"broken-{checkpoint.name}")
    try:
        if target.exists():
            shutil.rmtree(target)
        return checkpoint.rename(target)
    except OSError as error:
        raise ReadError(f"{checkpoint} cannot be set aside ({error.strerror}).") from error


def prune(run: Path, keep: int, best: int | None) -> None:
    """Remove all but the last `keep` checkpoints and the best one."""
    steps = list(checkpoints_in(run))
    for step in steps[:-keep]:
        if step != best:
            shutil.rmtree(checkpoint_at(run, step))
