"""The one thread on which all engine work runs, and the way there from asyncio.

CUDA's plan caches are thread-local, so work that hops between threads of a pool is many
times slower; and engines need not be safe to call from two threads.

There are short jobs and streams. Streams run one after the other, in the order they came;
between two items of a stream all short jobs that wait are done, so that one user's correction
does not wait for another's answer to be written. When nothing waits, idle work is done, one
piece at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from napari_medreasoner.core.errors import BusyError

__all__ = ["Beat", "Worker"]

T = TypeVar("T")


class _End:
    """Stands behind the last item of a stream."""


_END: Final = _End()


@dataclass(frozen=True, slots=True)
class Beat:
    """No item came for a while.

    Attributes
    ----------
    ahead : int
        Jobs that are done before this one; 0 once it runs.
    first : bool
        It is the one that opens the stream.
    """

    ahead: int
    first: bool = False


@dataclass(slots=True)
class _Job:
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.work()
        except Exception as error:  # noqa: BLE001 - raised again for whoever waits
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Worker:
    """Runs all engine work on one thread that lives as long as it does.

    Parameters
    ----------
    most_waiting : int
        Jobs that may wait; further ones are refused.
    idle : callable, optional
        Called again and again while nothing else is to be done, for as long as it returns
        True. It must be short, and raise nothing.
    """

    def __init__(self, most_waiting: int = 64, idle: Callable[[], bool] = lambda: False) -> None:
        self._most_waiting = most_waiting
        self._idle = idle
        self._changed = threading.Condition()
        self._short: deque[_Job] = deque()
        self._streams: deque[_Job] = deque()
        self._running: _Job | None = None
        self._closed = False
        # A daemon: an engine that does not come back must not keep the process.
        threading.Thread(target=self._live, name="engine", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        with self._changed:
            return len(self._short) + len(self._streams)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._running is not None

    def require_room(self) -> None:
        """Refuse when no further job may wait.

        Raises
        ------
        BusyError
            When too many jobs wait.
        """
        if self._closed or self.waiting >= self._most_waiting:
            raise BusyError("Too many requests are waiting; try again in a few seconds.")

    def close(self) -> None:
        """Drop the jobs that wait; the one that runs is not waited for."""
        with self._changed:
            self._closed = True
            dropped = [*self._short, *self._streams]
            self._short.clear()
            self._streams.clear()
            self._changed.notify()
        for job in dropped:
            job.future.cancel()

    def post(self, work: Callable[[], None]) -> None:
        """Have a function run in its turn, however many jobs wait, and do not wait for it."""
        with self._changed:
            if not self._closed:
                self._short.append(_Job(work))
                self._changed.notify()

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function; a job cancelled while it waits never starts.

        Raises
        ------
        BusyError
            When too many jobs wait.
        """
        job = self._enter(self._short, work)
        try:
            result: T = await asyncio.wrap_future(job.future)
            return result
        finally:
            self._leave(self._short, job)

    async def stream(
        self, make: Callable[[], Generator[T]], beat: float
    ) -> AsyncGenerator[T | Beat]:
        """Run a generator and hand its items over as they come.

        Closing this iterator, or cancelling the task that reads it, closes the generator at
        its next item; a generator that still waits never starts.

        Parameters
        ----------
        make : callable
            Called on the thread; returns the generator.
        beat : float
            A `Beat` is yielded at once, and whenever this many seconds pass without an item.

        Raises
        ------
        BusyError
            When too many jobs wait; before the first item.
        """
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[T | _End] = asyncio.Queue()
        stop = threading.Event()

        def produce() -> None:
            with closing(make()) as pieces:
                for piece in pieces:
                    if stop.is_set():
                        return
                    loop.call_soon_threadsafe(items.put_nowait, piece)
                    self._do_short_jobs()

        job = self._enter(self._streams, produce)
        future = asyncio.wrap_future(job.future)
        future.add_done_callback(lambda _: items.put_nowait(_END))
        try:
            yield Beat(self._ahead_of(job), first=True)
            async for item in _until_end(items, beat):
                yield Beat(self._ahead_of(job)) if item is None else item
            await future
        finally:
            stop.set()
            future.cancel()
            self._leave(self._streams, job)

    def _enter(self, queue: deque[_Job], work: Callable[[], Any]) -> _Job:
        job = _Job(work)
        self.require_room()
        with self._changed:
            queue.append(job)
            self._changed.notify()
        return job

    def _leave(self, queue: deque[_Job], job: _Job) -> None:
        with self._changed:
            if job in queue:
                queue.remove(job)

    def _ahead_of(self, job: _Job) -> int:
        with self._changed:
            if job not in self._streams:
                return 0
            running = self._running is not None
            return self._streams.index(job) + len(self._short) + running

    def _live(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            self._running = None

    def _next(self) -> _Job | None:
        """Wait for a job, doing idle work meanwhile; None at the end."""
        while True:
            with self._changed:
                queue = self._short or self._streams
                if queue:
                    self._running = queue.popleft()
                    return self._running
                if self._closed:
                    return None
            if self._idle():
                continue
            with self._changed:
                if not (self._short or self._streams or self._closed):
                    self._changed.wait()

    def _do_short_jobs(self) -> None:
        while True:
            with self._changed:
                if not self._short:
                    return
                job = self._short.popleft()
            job.run()


async def _until_end(items: asyncio.Queue[T | _End], beat: float) -> AsyncGenerator[T | None]:
    while True:
        try:
            item = await asyncio.wait_for(items.get(), beat)
        except TimeoutError:
            yield None
            continue
        if isinstance(item, _End):
            return
        yield item
