"""One daemon thread with an event loop for everything that may take time.

Network, disk and (de)compression happen here; results come back through `deliver`, which
the Qt side implements with a queued signal, so that they arrive on the Qt thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeVar

__all__ = ["BackgroundLoop", "Job", "Runner"]

T = TypeVar("T")


class Job(Protocol):
    """Work that was submitted."""

    def cancel(self) -> None:
        """Stop it; neither of its callbacks is called after this returns."""
        ...


class Runner(Protocol):
    """Runs coroutines beside the caller's thread and calls back on that thread."""

    def submit(
        self,
        work: Coroutine[Any, Any, T],
        on_result: Callable[[T], None],
        on_error: Callable[[BaseException], None],
    ) -> Job:
        """Start a coroutine."""
        ...

    def deliver(self, call: Callable[[], None]) -> None:
        """Have a function called on the caller's thread, in order; from any thread."""
        ...


class _Submitted:
    """A coroutine on the loop. Touched on the caller's thread only, but for `future`."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self._future.cancel()


class BackgroundLoop:
    """A `Runner` over one thread.

    Parameters
    ----------
    deliver : callable
        Takes a function and has it called on the owner's thread; safe from any thread.
    """

    def __init__(self, deliver: Callable[[Callable[[], None]], None]) -> None:
        self.deliver = deliver
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="medreasoner", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._drain())
        self._loop.close()

    async def _drain(self) -> None:
        """Cancel what still runs and let it clean up."""
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def submit(
        self,
        work: Coroutine[Any, Any, T],
        on_result: Callable[[T], None],
        on_error: Callable[[BaseException], None],
    ) -> Job:
        """Start a coroutine on the loop; see `Runner`."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        job = _Submitted(future)

        def report(done: Future[T]) -> None:
            self.deliver(lambda: _settle(job, done, on_result, on_error))

        future.add_done_callback(report)
        return job

    def stop(self, last: Coroutine[Any, Any, None], timeout: float) -> None:
        """Run one last coroutine and end the thread; waits no longer than `timeout` seconds."""
        final = asyncio.run_coroutine_threadsafe(last, self._loop)
        final.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        self._thread.join(timeout)


def _settle(
    job: _Submitted,
    done: Future[T],
    on_result: Callable[[T], None],
    on_error: Callable[[BaseException], None],
) -> None:
    if job.cancelled:
        return
    try:
        result = done.result()
    except CancelledError as error:
        on_error(error)
    except Exception as error:  # noqa: BLE001 (handed on, not swallowed)
        on_error(error)
    else:
        on_result(result)
