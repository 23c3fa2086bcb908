"""What damaged and hostile files do to the reader: `python benchmarks/robustness.py`.

Each file is read as the plugin reads it, by `read_sandboxed` in a process of its own. Counted are
seeded mutants of every kind of file, headers that lie or point at other files, bombs, pydicom's
own test files, and exports that are killed. Ends with one line for each thing that must hold, and
exit code 1 when one does not. Mutants that fail are kept in out/robustness; any can be made again
with `tests.imaging.mutants.mutant(kind, seed, number)`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.util
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pydicom
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.sandbox import read_sandboxed
from tests.imaging.crafted import CANARY, HEADERS, bombs, detached, directory
from tests.imaging.good_files import good_files
from tests.imaging.mutants import SUFFIXES, mutant

MIB: Final = 2**20
HANG: Final = 10.0
PROMPT: Final = 2.0
RISE: Final = 64 * MIB
BOMB_MEMORY: Final = 2**30
KEPT: Final = Path("out/robustness").absolute()
STDERR: Final = Console(stderr=True)

# How `sandbox.parent` words what is more than a refusal by the reader.
ENDINGS: Final = {
    "made its reader crash": "crashed",
    "took longer than": "hung",
    "its reader ended with": "escaped",
    "of memory to open": "memory",
    "made its reader answer nonsense": "nonsense",
}
OUTCOMES: Final = ("opened", "refused", "memory", "nonsense", "crashed", "hung", "escaped")


@dataclass(frozen=True)
class Read:
    """What came of one file."""

    name: str
    outcome: str
    sentence: str
    seconds: float

    @property
    def kind_of_sentence(self) -> str:
        """The sentence without what is this file's own."""
        general = re.sub(r'"[^"]*"', '"..."', self.sentence.replace(self.name, "FILE", 1))
        return re.sub(r"\[[^]]*\]|-?\d+(\.\d+)?(e[-+]?\d+)?", "N", general)


def read(path: Path, memory: int = 6 * 2**30) -> Read:
    """Read one file; again if it took too long, as a busy machine is no hang."""
    found = read_once(path, memory)
    return read_once(path, memory) if found.outcome == "hung" else found


def read_once(path: Path, memory: int) -> Read:
    """Read one file as the plugin does."""
    start = time.monotonic()
    outcome, sentence = "opened", ""
    try:
        read_sandboxed(path, timeout=HANG, memory=memory)
    except ReadError as error:
        sentence = str(error)
        found = (kind for words, kind in ENDINGS.items() if words in sentence)
        outcome = next(found, "refused")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
        outcome, sentence = "escaped", f"{type(error).__name__}: {error}"
    return Read(path.name, outcome, sentence, time.monotonic() - start)


def memory_of(field: str) -> int:
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class Growth:
    """How much this process grows from its making to `rise`."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        self._before = memory_of("VmRSS")

    def rise(self) -> tuple[int, int]:
        """Bytes held more than before: now, and at the highest."""
        gc.collect()
        return memory_of("VmRSS") - self._before, memory_of("VmHWM") - self._before


class Watched:
    """A folder that is home, place of temporary files and current folder: nothing may change."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for name in ("secret.dcm", "canary1.raw", "tmp/note"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(CANARY)
        os.environ |= {"HOME": str(root), "TMPDIR": str(root / "tmp")}
        os.chdir(root)
        self._before = self._state()

    def _state(self) -> dict[str, tuple[int, str]]:
        return {
            str(path): (path.stat().st_mtime_ns, "" if path.is_dir() else digest(path))
            for path in sorted(self._root.rglob("*"))
        }

    def changes(self) -> int:
        """Files and folders that came, went or are others than before."""
        return len(set(self._before.items()) ^ set(self._state().items()))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Report:
    """Prints tables as they come, and at the end what held."""

    def __init__(self) -> None:
        self._gates: list[tuple[bool, str]] = []

    def gate(self, held: bool, text: str) -> None:
        """Note whether something that must hold did."""
        self._gates.append((held, text))

    def verdict(self) -> int:
        """Print a line for each gate; exit code."""
        print("\nWhat must hold")
        for held, text in self._gates:
            print(f"  {'PASS' if held else 'FAIL'}  {text}")
        return int(not all(held for held, _ in self._gates))


def print_sentences(reads: Iterable[Read], most: int) -> None:
    """The most frequent sentences, without what is a file's own."""
    counts = Counter(one.kind_of_sentence for one in reads if one.sentence)
    for sentence, count in counts.most_common(most):
        print(f"    {count:6,} x {sentence}")
    if len(counts) > most:
        rest = sum(counts.values()) - sum(count for _, count in counts.most_common(most))
        print(f"    {rest:6,} x {len(counts) - most} other sentences")


def read_mutant(folder: Path, kind: str, seed: int, number: int) -> tuple[Read, bool]:
    """Read one mutant, and whether its file stayed as it was; a failure is kept."""
    path = folder / f"{number}{SUFFIXES[kind]}"
    data = mutant(kind, seed, number)
    path.write_bytes(data)
    found = read(path)
    same = path.read_bytes() == data
    path.unlink()
    if found.outcome in {"crashed", "hung", "escaped", "nonsense", "memory"}:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{found.outcome}-{seed}-{path.name}").write_bytes(data)
    return found, same


def mutants(report: Report, folder: Path, count: int, seed: int, jobs: int) -> None:
    """Read `count` mutants of each kind."""
    print(f"\nMutants: seed {seed}, {count:,} of each kind, {jobs} at a time")
    print(f"  {'':8}" + "".join(f"{name:>9}" for name in OUTCOMES) + "  slowest   rise (peak) MiB")
    reads: dict[str, list[Read]] = {}
    rises, touched = [], 0
    for kind in SUFFIXES:
        good_files(kind)
        growth = Growth()
        with ThreadPoolExecutor(jobs) as pool:
            work = pool.map(lambda n, kind=kind: read_mutant(folder, kind, seed, n), range(count))
            pairs = list(track(work, kind, count, console=STDERR))
        reads[kind] = [one for one, _ in pairs]
        touched += sum(not same for _, same in pairs)
        rises.append(growth.rise())
        counts = Counter(one.outcome for one in reads[kind])
        cells = "".join(f"{counts[name]:9,}" for name in OUTCOMES)
        slowest = max(one.seconds for one in reads[kind])
        now, peak = (rise / MIB for rise in rises[-1])
        print(f"  {kind:8}{cells}{slowest:8.2f} s{now:7.1f} ({peak:.1f})", flush=True)
    _mutant_details(reads)
    _mutant_gates(report, [one for found in reads.values() for one in found])
    most = max(peak for _, peak in rises)
    report.gate(most <= RISE, f"this process grew by {most / MIB:.1f} MiB at most (64)")
    report.gate(not touched, f"{touched} mutants were changed on disk by reading them (0)")


def _mutant_details(reads: dict[str, list[Read]]) -> None:
    for kind, found in reads.items():
        print(f"\n  {kind}: refused as")
        print_sentences([one for one in found if one.outcome == "refused"], 8)
    failed = [one for found in reads.values() for one in found]
    failed = [one for one in failed if one.outcome not in {"opened", "refused"}]
    for one in failed:
        print(f"  {one.outcome}: {one.sentence} ({one.seconds:.1f} s)")


def _mutant_gates(report: Report, reads: list[Read]) -> None:
    counts, total = Counter(one.outcome for one in reads), len(reads)
    for outcome, text in (
        ("crashed", "mutants ended their reader by a signal"),
        ("hung", f"mutants took longer than {HANG:g} s"),
        ("escaped", "mutants raised another error than a ReadError, here or in the reader"),
    ):
        report.gate(not counts[outcome], f"{counts[outcome]} of {total:,} {text} (0)")
    print(f"\n  0 of {total:,} bounds a rate at {3 / total:.3%} (3/N, 95 %).")


def start_of_child(folder: Path) -> float:
    """Median seconds to open a tiny good file: what any file costs on this machine now."""
    path = folder / "good.png"
    path.write_bytes(good_files("PNG")[0])
    return statistics.median(read(path).seconds for _ in range(7))


def crafted(
    report: Report, folder: Path, what: str, files: dict[str, bytes], memory: int = 6 * 2**30
) -> None:
    """Read files that must all be refused at once, and not by running out of memory."""
    reads = []
    for name, data in track(files.items(), what, console=STDERR):
        (folder / name).write_bytes(data)
        reads.append(read(folder / name, memory))
    bad = [one for one in reads if one.outcome != "refused" or one.seconds > PROMPT]
    slowest = max(reads, key=lambda one: one.seconds)
    print(
        f"\n{len(files)} {what}, in {memory / 2**30:g} GiB: slowest {slowest.seconds:.2f} s, "
        f"{slowest.name}; refused as"
    )
    print_sentences(reads, 12)
    for one in bad:
        print(f"  NOT REFUSED IN TIME: {one.name} {one.outcome} {one.seconds:.2f} s {one.sentence}")
    report.gate(
        not bad,
        f"{len(reads) - len(bad)} of {len(reads)} {what} refused in {PROMPT:g} s, slowest "
        f"{slowest.seconds:.2f} s",
    )


def pointing_elsewhere(report: Report, folder: Path) -> None:
    """Read headers that name other files as their voxels: relative, absolute and a real secret."""
    reads = []
    canary = folder / "canary1.raw"
    canary.write_bytes(CANARY)
    os.utime(canary, (1, 2))  # an old access time, which reading makes new
    before = canary.stat().st_atime_ns
    for number, target in enumerate(("canary1.raw", str(canary), "/etc/passwd", "../secret.dcm")):
        for name, data in detached(target).items():
            path = folder / f"{number}-{name}"
            path.write_bytes(data)
            reads.append(read(path))
        inside = folder / f"disc{number}"
        inside.mkdir()
        (inside / "DICOMDIR").write_bytes(directory(target))
        reads.append(read(inside))
    accepted = [one for one in reads if one.outcome != "refused"]
    for one in accepted:
        print(f"  NOT REFUSED: {one.name} {one.outcome} {one.sentence}")
    followed = canary.stat().st_atime_ns != before
    print(f"\nHeaders and DICOMDIRs that point at other files: {len(reads)}; refused as")
    print_sentences(reads, 6)
    report.gate(
        not accepted and not followed,
        f"{len(accepted)} of {len(reads)} headers and DICOMDIRs that point elsewhere accepted (0)",
    )


def pydicom_files() -> Iterator[Path]:
    """Every file of pydicom's own test sets."""
    roots = [Path(pydicom.__file__).parent / "data"]
    spec = importlib.util.find_spec("data_store")
    roots += [Path(spec.origin).parent / "data"] if spec and spec.origin else []
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                yield path


def test_sets(report: Report, jobs: int) -> None:
    """Read every file of pydicom's own test sets."""
    paths = list(pydicom_files())
    with ThreadPoolExecutor(jobs) as pool:
        reads = list(track(pool.map(read, paths), "pydicom", len(paths), console=STDERR))
    counts = Counter(one.outcome for one in reads)
    slowest = max(reads, key=lambda one: one.seconds)
    print(
        f"\npydicom's {len(paths)} test files: {counts['opened']} opened, slowest "
        f"{slowest.seconds:.2f} s, {slowest.name}; refused as"
    )
    print_sentences(reads, 40)
    other = len(paths) - counts["opened"] - counts["refused"]
    unnamed = sum(one.outcome == "refused" and one.name not in one.sentence for one in reads)
    report.gate(
        not other and not unnamed,
        f"{counts['opened']} of pydicom's {len(paths)} test files opened, {counts['refused']} "
        f"refused by name, {other + unnamed} neither (0)",
    )


def killed_exports(report: Report, count: int, seed: int) -> None:
    """Kill exports at random times; see benchmarks/kills.py."""
    try:
        from kills import kill_during_export
    except ModuleNotFoundError:
        print("\nbenchmarks/kills.py is not there: no export was killed.")
        return
    kills = kill_during_export(count, seed)
    print(f"\nExports killed at random moments: {count}, seed {seed}; {kills._asdict()}")
    report.gate(
        not kills.other and not kills.left,
        f"{kills.other} of {count} killed exports left another file than the old or the new, "
        f"{kills.left} temporary files stayed (0)",
    )


def main() -> int:
    """Read the options, run every part and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=2000, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="files read at a time")
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args()
    report, start = Report(), time.monotonic()
    with TemporaryDirectory() as root:
        watched, folder = Watched(Path(root) / "watched"), Path(root) / "files"
        folder.mkdir()
        once = start_of_child(folder)
        print(f"A tiny good file takes {once:.2f} s (median of 7): the start of its reader.")
        crafted(report, folder, "crafted headers", HEADERS)
        crafted(report, folder, "bombs", bombs(), BOMB_MEMORY)
        pointing_elsewhere(report, folder)
        test_sets(report, options.jobs)
        mutants(report, folder, options.mutants, options.seed, options.jobs)
        changes = watched.changes()
        report.gate(not changes, f"{changes} files appeared or changed outside (0)")
        killed_exports(report, options.kills, options.seed)
        os.chdir("/")
    print(f"\nTook {(time.monotonic() - start) / 60:.1f} minutes.")
    return report.verdict()


if __name__ == "__main__":
    sys.exit(main())
