"""The one thread on which all engine work runs, and the way there from asyncio.

CUDA's plan caches are thread-local, so work that hops between threads of a pool is many
times slower; and engines need not be safe to call from two threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import Final, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")


class _End:
    """Stands behind the last item of a stream."""


_END: Final = _End()


class Worker:
    """Runs jobs one after the other, in the order they came, all on one thread."""

    def __init__(self) -> None:
        # With one worker the executor is a queue and a thread that lives as long as it does.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    def close(self) -> None:
        """Drop the jobs that wait; the one that runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function; a job cancelled while it waits never starts."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def stream(
        self, make: Callable[[], Generator[T]], beat: float
    ) -> AsyncGenerator[T | None]:
        """Run a generator and hand its items over as they come.

        Closing this iterator, or cancelling the task that reads it, closes the generator at
        its next item; a generator that still waits never starts.

        Parameters
        ----------
        make : callable
            Called on the thread; returns the generator.
        beat : float
            None is yielded whenever this many seconds pass without an item.
        """
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[T | _End] = asyncio.Queue()
        stop = Event()

        def produce() -> None:
            if stop.is_set():  # the executor learns of a cancellation a moment late
                return
            with closing(make()) as pieces:
                for piece in pieces:
                    if stop.is_set():
                        return
                    loop.call_soon_threadsafe(items.put_nowait, piece)

        job = loop.run_in_executor(self._executor, produce)
        job.add_done_callback(lambda _: items.put_nowait(_END))
        try:
            async for item in _until_end(items, beat):
                yield item
            await job
        finally:
            stop.set()
            job.cancel()


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
