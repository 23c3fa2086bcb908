"""The local server's life: started on first need, watched, restarted on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, Protocol

from napari_medreasoner.client.client import Client
from napari_medreasoner.core.errors import MedReasonerError, UnreachableError
from napari_medreasoner.gui.session import BackendState

__all__ = ["LOST", "Backend", "Engines", "Server"]

LOST: Final = 'The backend has stopped; your work is kept. Press "Restart backend" to go on.'


class Engines(NamedTuple):
    """Names of what answers and what segments, and the version they came with."""

    reasoner: str
    segmenter: str
    version: str

    @property
    def of_answer(self) -> str:
        """What is behind a mask that was asked for."""
        return f"{self.reasoner} + {self.segmenter} ({self.version})"

    @property
    def of_mask(self) -> str:
        """What is behind a mask of prompts that the user drew."""
        return f"{self.segmenter} ({self.version})"


class Server(Protocol):
    """A server process; `napari_medreasoner.client.launcher.LocalServer` is one."""

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        ...

    async def start(self) -> None:
        """Start it and wait until it answers."""
        ...

    def client(self) -> Client:
        """A client of the running server."""
        ...

    async def watch(self) -> int | None:
        """Wait for the process to end; its exit code."""
        ...

    async def stop(self) -> None:
        """End it; harmless when it is not running."""
        ...


class Backend:
    """One server for one widget. Everything runs on the background loop.

    Parameters
    ----------
    server : Server
        Not started yet.
    on_state : callable
        Told each new state; called on the background thread.
    """

    def __init__(self, server: Server, on_state: Callable[[BackendState], None]) -> None:
        self._server = server
        self._on_state = on_state
        self._starting = asyncio.Lock()
        self._client: Client | None = None
        self._engines: Engines | None = None
        self._lost = False
        self._watcher: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Client of the server, which is started when it was never needed before.

        Raises
        ------
        MedReasonerError
            When the server cannot be started, or has ended since and was not restarted.
        """
        client = await self._connected()
        try:
            yield client
        except UnreachableError as error:
            await self._lose()
            raise UnreachableError(LOST) from error

    async def engines(self, client: Client) -> Engines:
        """What a client's server runs; asked once in its life."""
        if self._engines is None:
            can, health = await client.capabilities(), await client.health()
            self._engines = Engines(can.crm.name, can.asm.name, health.version)
        return self._engines

    async def restart(self) -> None:
        """Start the server again, ending it first if it still runs."""
        async with self._starting:
            await self._end()
            self._client = await self._start()

    async def stop(self) -> None:
        """End the server for good; harmless when it is not running."""
        await self._end()
        self._on_state("off")

    async def _connected(self) -> Client:
        async with self._starting:
            if self._lost:
                raise UnreachableError(LOST)
            if self._client is None:
                self._client = await self._start()
            return self._client

    async def _lose(self) -> None:
        self._lost = True
        await self._hang_up()
        self._on_state("lost")

    async def _hang_up(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.__aexit__(None, None, None)

    async def _start(self) -> Client:
        self._on_state("starting")
        try:
            await self._server.start()
            client = self._server.client()
            self._engines = None
        except MedReasonerError:
            await self._lose()
            raise
        self._lost = False
        self._watcher = asyncio.create_task(self._watch())
        self._on_state("ready")
        return client

    async def _watch(self) -> None:
        await self._server.watch()
        await self._lose()

    async def _end(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        await self._hang_up()
        await self._server.stop()
