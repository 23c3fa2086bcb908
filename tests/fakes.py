"""A reasoner and a segmenter that do as they are told, for tests of everything around them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.grounding import format_answer
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import ReasonerInput, Segmentation, SliceMask, VolumeInput

BOX = Box.from_corners(2, 3, 8, 9)
POINTS = (Point(x=4, y=5), Point(x=6, y=7))


def info(name: str) -> EngineInfo:
    return EngineInfo(
        name=name,
        title=name.title(),
        description="A fake for tests.",
        licence="BSD-3-Clause",
        coordinates="pixels of the given image",
        input_window="as displayed",
    )


class FakeReasoner:
    """Writes numbered words; the question "slow N" waits 20 ms before each of N words."""

    info = info("fake-crm")

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.written = 0
        self.closed = threading.Event()
        self.inputs: list[ReasonerInput] = []

    def stream(self, request: ReasonerInput) -> Iterator[str]:
        self.threads.add(threading.get_ident())
        self.inputs.append(request)
        if request.question == "crash":
            raise RuntimeError("engine bug")
        slow = request.question.startswith("slow")
        words = int(request.question.split()[1]) if slow else 3
        text = format_answer("".join(f"word {n} " for n in range(words)), BOX, POINTS)
        try:
            for start in range(0, len(text), 7):
                self.written += 1
                time.sleep(0.02 if slow else 0)
                yield text[start : start + 7]
        finally:
            self.closed.set()


class FakeSegmenter:
    """Fills the box; waits for `gate` when it is cleared."""

    info = info("fake-asm")

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.previous: list[Any] = []

    def _called(self, name: str) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(name)
        if self.fault is not None:
            raise self.fault

    def set_image(self, image: NDArray[np.uint8]) -> Any:
        self._called("set_image")
        return image.shape[:2]

    def segment(self, embedding: Any, prompts: Prompts, previous: Any = None) -> Segmentation:
        self._called("segment")
        self.gate.wait(10)
        self.previous.append(previous)
        return Segmentation(self._filled(embedding, prompts), 0.75, state=len(self.previous))

    def _filled(self, shape: tuple[int, int], prompts: Prompts) -> NDArray[np.bool_]:
        mask = np.zeros(shape, np.bool_)
        if prompts.box is not None:
            mask[prompts.box.slices] = True
        return mask


class FakeVolumeSegmenter(FakeSegmenter):
    """Fills the box on the prompted slice of the volume."""

    def __init__(self) -> None:
        super().__init__()
        self.volume: NDArray[np.uint8] | None = None
        self.requests: list[VolumeInput] = []

    def propagate(self, request: VolumeInput) -> Iterator[SliceMask]:
        self._called("propagate")
        self.requests.append(request)
        self.volume = np.stack(list(request.pictures))
        shape = request.pictures[request.index].shape[:2]
        yield SliceMask(request.index, self._filled(shape, request.prompts), 0.5)


class NoisyReasoner(FakeReasoner):
    """Prints while it loads, as model libraries do."""

    def __init__(self) -> None:
        super().__init__()
        sys.stdout.write("loading weights\n")
        os.write(1, b"loading plugins\n")


class BrokenSegmenter(FakeSegmenter):
    """Fails from the first call on."""

    def set_image(self, image: NDArray[np.uint8]) -> Any:
        raise RuntimeError("no weights")


ENTRY_POINTS = """\
[napari_medreasoner.reasoners]
fake = tests.fakes:FakeReasoner
noisy = tests.fakes:NoisyReasoner

[napari_medreasoner.segmenters]
fake = tests.fakes:FakeVolumeSegmenter
broken = tests.fakes:BrokenSegmenter
"""


def install(folder: Path) -> dict[str, str]:
    """Register the fakes for another process; return the environment that makes it see them."""
    metadata = folder / "medreasoner_fakes-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fakes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(Path(__file__).parents[1])))}
