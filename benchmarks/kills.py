"""Exports killed with SIGKILL at random moments: the target is the old or the new file, never else.

Run: `python benchmarks/kills.py [COUNT [SEED]]`; exits with 1 when a target is anything else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import Segment, Volume, read_image, write_segments
from napari_medreasoner.imaging.volume import plain_grid
from napari_medreasoner.imaging.writers.atomic import write_text

SUFFIXES = (".nii.gz", ".nrrd", ".json")
"""Kinds of target, taken in turn."""

_SHAPE = (40, 128, 128)
_WRITERS = "napari_medreasoner.imaging.writers"
_PRELOADED = (f"{_WRITERS}.formats", f"{_WRITERS}.nifti", f"{_WRITERS}.nrrd")
_START = multiprocessing.get_context("forkserver")


class Kills(NamedTuple):
    """Targets found after the kills, and temporary files that the next export swept away."""

    old: int
    new: int
    other: int
    unfinished: int
    swept: int
    left: int


def _mask(seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(_SHAPE) < 0.3


def _export(target: Path, seed: int) -> None:
    """Write the mask of a seed, as a label map or as text."""
    mask = _mask(seed)
    if target.suffix == ".json":
        write_text(target, str(np.packbits(mask).tolist()))
    else:
        volume = Volume(np.zeros(_SHAPE, np.int16), plain_grid(_SHAPE), "x")
        write_segments(target, [Segment(mask)], volume)


def _holds(target: Path, seed: int) -> bool:
    """Whether a target is whole and holds the mask of a seed."""
    mask = _mask(seed)
    try:
        if target.suffix == ".json":
            return target.read_text() == str(np.packbits(mask).tolist())
        return np.array_equal(read_image(target).array, mask)
    except (OSError, ReadError):
        return False


def _work(target: Path, ready: Connection) -> None:
    ready.send("about to export")
    _export(target, 1)
    ready.send("done")


@contextmanager
def _exporting(target: Path) -> Iterator[tuple[Callable[[], None], Connection]]:
    """A process that is about to export, how to kill it, and where it tells its end."""
    here, there = _START.Pipe()
    process = _START.Process(target=_work, args=(target, there), daemon=True)
    process.start()
    here.recv()
    try:
        yield process.kill, here
    finally:
        process.join()


def _seconds(target: Path) -> float:
    """How long one export takes in such a process; the shorter of two."""
    times = []
    for _ in range(2):
        with _exporting(target) as (_, here):
            start = time.perf_counter()
            here.recv()
            times.append(time.perf_counter() - start)
    return min(times)


def _temporaries(folder: Path, target: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path != target]


def kill_during_export(count: int, seed: int) -> Kills:
    """Kill `count` exports, each at a random moment of its work, and look at what is there.

    Parameters
    ----------
    count : int
        Number of kills.
    seed : int
        Of the moments.
    """
    _START.set_forkserver_preload(list(_PRELOADED))
    moments, tally = random.Random(seed), dict.fromkeys(Kills._fields, 0)  # noqa: S311
    with TemporaryDirectory() as name:
        targets = [Path(name, f"{number}", f"out{kind}") for number, kind in enumerate(SUFFIXES)]
        for target in targets:
            target.parent.mkdir()
            _export(target, 0)
        lengths = [_seconds(target) for target in targets]
        for number in range(count):
            which = number % len(targets)
            target = targets[which]
            _export(target, 0)
            with _exporting(target) as (kill, _):
                time.sleep(moments.uniform(0, lengths[which]))
                kill()
            _judge(target, tally)
    return Kills(**tally)


def _judge(target: Path, tally: dict[str, int]) -> None:
    """Count what a kill left, and what is left of that after one more export."""
    kind = next((kind for seed, kind in enumerate(("old", "new")) if _holds(target, seed)), "other")
    tally[kind] += 1
    torn = len(_temporaries(target.parent, target))
    tally["unfinished"] += torn > 0
    _export(target, 0)
    left = len(_temporaries(target.parent, target))
    tally["swept"] += torn - left
    tally["left"] += left


def main() -> None:
    """Kill as many exports as asked, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=200)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    count, seed = vars(parser.parse_args()).values()
    kills = kill_during_export(count, seed)
    print(
        f"{count} exports killed (seed {seed}): {kills.old} old files, {kills.new} new, "
        f"{kills.other} anything else; {kills.unfinished} killed while writing, {kills.swept} "
        f"temporary files swept by the next export, {kills.left} left"
    )
    sys.exit(kills.other > 0 or kills.left > 0)


if __name__ == "__main__":
    main()
