"""A runner that moves only when told, and a client, server and view without anything behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import numpy as np

from napari_medreasoner.client.client import SegmentResult
from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.protocol import (
    AnswerEvent,
    Capabilities,
    DoneEvent,
    EngineInfo,
    Event,
    Health,
    MaskEvent,
    PropagatedEvent,
    SliceEvent,
    StatusEvent,
    ThinkEvent,
)
from napari_medreasoner.gui.target import Geometry, ImageSource, Target
from napari_medreasoner.imaging.volume import plain_grid

BOX = Box.from_corners(2, 3, 8, 9)
POINTS = (Point(x=4, y=5), Point(x=6, y=7))
ANSWERED = Prompts(box=BOX, points=POINTS)


def prompts(x1: int, y1: int, x2: int, y2: int, *points: Point) -> Prompts:
    return Prompts(box=Box.from_corners(x1, y1, x2, y2), points=points)


class _Inline(ThreadPoolExecutor):
    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 (handed on in the future)
            future.set_exception(error)
        return future


class ManualRunner:
    """A `Runner` on the test's own thread: nothing moves outside `settle`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_Inline())
        self._posted: deque[Callable[[], None]] = deque()

    def submit(self, work: Any, on_result: Any, on_error: Any) -> ManualJob:
        job = ManualJob(self.loop.create_task(work))

        def report(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                return
            error = task.exception()
            call = (lambda: on_error(error)) if error else (lambda: on_result(task.result()))
            self.deliver(lambda: None if job.cancelled else call())

        job.task.add_done_callback(report)
        return job

    def deliver(self, call: Callable[[], None]) -> None:
        self._posted.append(call)

    def settle(self) -> None:
        """Run until everything is done or waits for the test."""
        for _ in range(20):
            self.loop.run_until_complete(self._step())
            while self._posted:
                self._posted.popleft()()

    async def _step(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(self._step())
        self.loop.close()


class ManualJob:
    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.task.cancel()


def filled(shape: tuple[int, ...], asked: Prompts) -> Any:
    mask = np.zeros(shape, np.bool_)
    if asked.box is not None:
        mask[..., asked.box.y1 : asked.box.y2, asked.box.x1 : asked.box.x2] = True
    for point in asked.points:
        mask[..., point.y, point.x] = point.positive
    return mask


def answer_script(shape: tuple[int, int], *words: str) -> list[Event]:
    trace = "".join(words)
    return [
        StatusEvent(stage="reasoning"),
        *(ThinkEvent(text=word) for word in words),
        AnswerEvent(box=BOX, points=POINTS),
        StatusEvent(stage="segmenting"),
        MaskEvent(mask=PackedMask.pack(filled(shape, ANSWERED)), score=0.9),
        DoneEvent(
            trace_sha256=sha256(trace.encode()).hexdigest(),
            reason_ms=20,
            segment_ms=5,
            first_token_ms=1,
        ),
    ]


class FakeClient:
    """Fills the box. With `held` set, segmentation waits for `release`; `script` is the answer.

    An `asyncio.Event` in the script waits for the test, an exception is raised there.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.consents: list[bool] = []
        self.wanted: list[tuple[Prompts, str]] = []
        self.grown: list[Any] = []
        self.ended: set[int] = set()
        self.unsure: set[int] = set()
        self.held = False
        self.fault: Exception | None = None
        self.script: list[Any] | None = None
        self._gates: deque[asyncio.Event] = deque()

    def release(self) -> None:
        """Let the oldest segmentation finish."""
        self._gates.popleft().set()

    async def capabilities(self) -> Capabilities:
        one = {"title": "", "description": "", "licence": "", "coordinates": "", "input_window": ""}
        return Capabilities(
            crm=EngineInfo(name="seer", **one),
            asm=EngineInfo(name="cutter", **one),
            max_body_bytes=1,
            templates=(),
        )

    async def health(self) -> Health:
        return Health(version="1.2")

    async def renew_lease(self) -> None:
        pass

    async def segment(self, picture: Any, asked: Prompts, *, refine: bool = False) -> SegmentResult:
        self.wanted.append((asked, "refine" if refine else "slice"))
        if self.held:
            gate = asyncio.Event()
            self._gates.append(gate)
            await gate.wait()
        if self.fault is not None:
            raise self.fault
        return SegmentResult(filled(picture.shape, asked), 0.5, 1.0)

    async def propagate(
        self, picture: Any, asked: Prompts, *, span: tuple[int, int], mask: Any = None
    ) -> AsyncIterator[Event]:
        """Repeat the mask on every slice of the span, the slice asked about first."""
        self.grown.append((asked, picture.plane, span, None if mask is None else int(mask.sum())))
        part = PackedMask.pack(filled(picture.shape, asked) if mask is None else mask)
        first = picture.plane.index
        yield StatusEvent(stage="waiting", ahead=1)
        for count, index in enumerate(
            sorted(range(span[0], span[1] + 1), key=lambda i: abs(i - first))
        ):
            if self.held and count == 2:
                gate = asyncio.Event()
                self._gates.append(gate)
                await gate.wait()
            if self.fault is not None:
                raise self.fault
            if index in self.ended:
                continue
            yield SliceEvent(index=index, mask=part, score=0.2 if index in self.unsure else 0.9)
        yield PropagatedEvent(slices=span[1] - span[0] + 1, milliseconds=3)

    async def ask(
        self,
        picture: Any,
        question: str,
        *,
        modality: str = "",
        template: Any = None,
        consent: bool = False,
    ) -> AsyncIterator[Event]:
        self.asked.append((question, modality))
        self.consents.append(consent)
        script = answer_script(picture.shape, "I ", "see.") if self.script is None else self.script
        for item in script:
            if isinstance(item, asyncio.Event):
                await item.wait()
            elif isinstance(item, Exception):
                raise item
            else:
                yield item

    async def __aexit__(self, *_: object) -> None:
        pass


class FakeServer:
    """Starts at once; `die` ends it as a crash would."""

    def __init__(self, client: FakeClient | None = None) -> None:
        self.fake = client or FakeClient()
        self.running = False
        self.starts = 0
        self.stops = 0
        self.fault: Exception | None = None
        self._ended = asyncio.Event()

    async def start(self) -> None:
        if self.fault is not None:
            raise self.fault
        self._ended = asyncio.Event()
        self.running = True
        self.starts += 1

    def client(self) -> Any:
        return self.fake

    async def watch(self) -> int:
        await self._ended.wait()
        return -9

    async def stop(self) -> None:
        self.running = False
        self.stops += 1

    def die(self) -> None:
        self.running = False
        self._ended.set()


class FakeView:
    """Remembers what it was told to show."""

    def __init__(self, source: ImageSource, plane: Any = None) -> None:
        self.source = source
        self.plane = plane
        self.fault: Exception | None = None
        self.prompts: tuple[Prompts, Any] = (Prompts(), None)
        self.masks = 0
        self.pixels: Any = None

    def shown(self) -> Target:
        if self.fault is not None:
            raise self.fault
        return self.target(self.source, self.plane)

    def target(self, source: ImageSource, plane: Any) -> Target:
        return Target(source, Geometry(plain_grid(source.shape)), plane)

    def show_prompts(self, source: ImageSource, shown: Prompts, plane: Any) -> None:
        self.prompts = (shown, plane)

    def show_mask(self, source: ImageSource, pixels: Any) -> None:
        self.masks += 1
        self.pixels = pixels
