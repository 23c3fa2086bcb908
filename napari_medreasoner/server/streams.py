"""Streams of events on the wire: beats, places in the queue, and every way to end early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import ClientDisconnect

from napari_medreasoner.core.errors import (
    BackendError,
    ShuttingDownError,
    SupersededError,
)
from napari_medreasoner.core.protocol import ErrorEvent, Event, StatusEvent
from napari_medreasoner.server.worker import Beat

__all__ = ["KEEP_ALIVE_SECONDS", "Stops", "encoded", "unless_stopped"]

T = TypeVar("T")

# Also the longest time until a client that left in silence is noticed.
KEEP_ALIVE_SECONDS: Final = 1.0


class Stops:
    """Why work of one request may end before it is done.

    Parameters
    ----------
    superseded : asyncio.Future
        Done when the client has asked for something newer.
    ending : asyncio.Event
        Set when the server ends.
    """

    def __init__(self, superseded: asyncio.Future[None], ending: asyncio.Event) -> None:
        self._superseded = superseded
        self._ending = ending

    @property
    def reason(self) -> BackendError | None:
        """The error to report; None while the work may go on."""
        if self._superseded.done():
            return SupersededError("You have asked for something newer; its answer comes.")
        if self._ending.is_set():
            return ShuttingDownError("The backend is shutting down; ask again when it is back.")
        return None

    async def wait(self) -> BackendError:
        """Wait until there is a reason."""
        ending: asyncio.Future[Any] = asyncio.ensure_future(self._ending.wait())
        try:
            waited: set[asyncio.Future[Any]] = {self._superseded, ending}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
        reason = self.reason
        if reason is None:
            raise AssertionError("woken without a reason")
        return reason


def _line(event: Event) -> bytes:
    return format_sse_event(data_str=event.model_dump_json(), event=event.type)


async def encoded(
    events: AsyncGenerator[Event | Beat], stops: Stops, beat: Callable[[], None]
) -> AsyncIterator[bytes]:
    """Events as lines; a beat becomes the place in the queue, or a comment.

    Parameters
    ----------
    events : async generator
        From `Worker.stream`; closed in any case.
    stops : Stops
        Asked at every item.
    beat : callable
        Called at every beat: the client is still there.
    """
    ahead = -1
    async with aclosing(events):
        async for event in events:
            if (fault := stops.reason) is not None:
                yield _line(ErrorEvent(code=fault.code, message=str(fault)))
                return
            if not isinstance(event, Beat):
                yield _line(event)
                continue
            beat()
            changed, ahead = event.ahead != ahead, event.ahead
            waits = changed and (ahead > 0 or event.first)
            yield _line(StatusEvent(stage="waiting", ahead=ahead)) if waits else KEEPALIVE_COMMENT


async def unless_stopped(request: Request, work: Awaitable[T], stops: Stops) -> T:
    """Await some work, but cancel it as soon as the client leaves or a reason to stop comes.

    Raises
    ------
    ClientDisconnect
        When the client left.
    SupersededError, ShuttingDownError
        When there is a reason to stop.
    """
    job = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    stopped = asyncio.ensure_future(stops.wait())
    try:
        await asyncio.wait({job, gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        if stopped.done():
            raise stopped.result()
        raise ClientDisconnect
    finally:
        for task in (job, gone, stopped):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
