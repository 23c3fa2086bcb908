"""What the layers above the engines cost, against the bare engine in the same run.

Prints three tables: a correction through controller, client and server against the bare
segmenter call; the first text of a trace against the bare reasoner; the import of the
plugin against the import of napari. Run: `make bench` (needs a display or xvfb-run).
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice

import napari
from qtpy.QtCore import QEventLoop, QTimer

from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.geometry import Box, Prompts, SlicePlane
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.core.protocol import ThinkEvent
from napari_medreasoner.engines.base import question_for
from napari_medreasoner.engines.registry import create_reasoner, create_segmenter
from napari_medreasoner.gui.coordinates import rectangle_of
from napari_medreasoner.gui.samples import case_layers
from napari_medreasoner.gui.widget import MedReasonerWidget
from napari_medreasoner.imaging.samples import SampleCase, sample_cases
from napari_medreasoner.imaging.window import default_window, to_rgb, to_uint8

_BASELINES = ("prior", "classical")
"""Engines that take the least time themselves."""

_REPEATS = 40
_IMPORTS = 7


def _row(name: str, seconds: list[float], reference: float) -> float:
    """Print median, 95th percentile and the ratio to a reference; return the median."""
    median = statistics.median(seconds)
    high = statistics.quantiles(seconds, n=20)[-1]
    ratio = f"{median / reference:8.2f}" if reference else "    1.00"
    print(f"  {name:<34}{median * 1000:9.1f} ms{high * 1000:9.1f} ms{ratio}")
    return median


def _head(title: str) -> None:
    print(f"\n{title}\n  {'':<34}{'median':>12}{'95 %':>12}   ratio")


def _clock(work: Callable[[int], object], repeats: int = _REPEATS) -> list[float]:
    """Seconds of each call but the first."""
    seconds = []
    for turn in range(repeats + 1):
        start = time.perf_counter()
        work(turn)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


class _Bench:
    """One case: the picture, and prompts that move by a pixel from call to call."""

    def __init__(self, case: SampleCase) -> None:
        self.case = case
        volume = case.load()
        self.plane = (
            None if case.slice_index is None else SlicePlane(axis=0, index=case.slice_index)
        )
        self.window = default_window(volume)
        self.picture = Picture(
            UploadImage(volume.array), self.plane, self.window, volume.grid.spacing
        )
        shown = self.plane.cut(volume.array) if self.plane else volume.array
        self.rgb = to_rgb(to_uint8(shown, self.window))
        rows, columns = self.rgb.shape[:2]
        self._box = (columns // 3, rows // 3, columns * 2 // 3, rows * 2 // 3)

    def box(self, turn: int) -> Box:
        """A box over the middle third, moved by a pixel from turn to turn."""
        x1, y1, x2, y2 = self._box
        return Box.from_corners(x1 + turn % 8, y1, x2 + turn % 8, y2)

    def bare_segmenter(self) -> list[float]:
        segmenter = create_segmenter("classical")
        embedding = segmenter.set_image(self.rgb)
        return _clock(lambda turn: segmenter.segment(embedding, Prompts(box=self.box(turn))))

    def bare_reasoner(self) -> list[float]:
        reasoner = create_reasoner("prior")
        request = question_for(
            reasoner, self.rgb, self.case.question, BUILT_IN["Reasoning"], self.case.modality
        )
        return _clock(lambda _: list(islice(reasoner.stream(request), 1)))

    async def over_the_wire(self) -> tuple[list[float], list[float]]:
        """Seconds per correction and until the first text, client to server and back."""
        corrections, first_texts = [], []
        async with LocalServer(*_BASELINES) as server, server.client() as client:
            for turn in range(_REPEATS + 1):
                start = time.perf_counter()
                await client.segment(self.picture, Prompts(box=self.box(turn)))
                corrections.append(time.perf_counter() - start)
            for _ in range(_REPEATS + 1):
                start = time.perf_counter()
                async for event in client.ask(
                    self.picture, self.case.question, modality=self.case.modality
                ):
                    if isinstance(event, ThinkEvent):
                        first_texts.append(time.perf_counter() - start)
                        break
        return corrections[1:], first_texts[1:]

    def through_the_plugin(self) -> list[float]:
        """Seconds from moving the box in its layer to the new mask in the labels layer."""
        viewer = napari.Viewer(show=False)
        [(data, options, _)] = case_layers(self.case)
        viewer.add_image(data, **options)
        widget = MedReasonerWidget(viewer, LocalServer(*_BASELINES))
        viewer.window.add_dock_widget(widget)
        session = widget.workspace.session
        try:
            widget.ask()
            _wait(lambda: not session.asking)
            box = next(layer for layer in viewer.layers if isinstance(layer, napari.layers.Shapes))

            def correct(turn: int) -> None:
                rectangle = rectangle_of(self.box(turn), self.plane)
                box.data = [(rectangle, "rectangle")]
                _wait(lambda: not session.segmenting)

            return _clock(correct)
        finally:
            widget.close_workspace()
            viewer.close()


def _wait(done: Callable[[], bool]) -> None:
    """Let Qt work until a condition holds."""
    loop = QEventLoop()
    timer = QTimer()
    timer.timeout.connect(lambda: loop.quit() if done() else None)
    timer.start(0)
    loop.exec()


def _import_seconds(statement: str) -> list[float]:
    return _clock(
        lambda _: subprocess.run([sys.executable, "-c", statement], check=True),  # noqa: S603
        _IMPORTS,
    )


def main() -> None:
    """Print the tables."""
    for case in sample_cases():
        bench = _Bench(case)
        height, width = bench.rgb.shape[:2]
        corrections, first_texts = asyncio.run(bench.over_the_wire())
        _head(f"{case.id}, {width} x {height}: a correction ({_REPEATS} times)")
        bare = _row("segmenter alone", bench.bare_segmenter(), 0)
        _row("client and server", corrections, bare)
        _row("plugin, client and server", bench.through_the_plugin(), bare)
        _head(f"{case.id}: first text of the trace")
        bare = _row("reasoner alone", bench.bare_reasoner(), 0)
        _row("client and server", first_texts, bare)
    _head(f"import, new process ({_IMPORTS} times)")
    bare = _row("napari", _import_seconds("import napari; napari.Viewer"), 0)
    plugin = "import napari; napari.Viewer; import napari_medreasoner.gui.widget"
    _row("napari and the plugin", _import_seconds(plugin), bare)


if __name__ == "__main__":
    main()
