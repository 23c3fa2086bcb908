"""The local server's life: started on first need, watched, restarted on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple, Protocol

from napari_medreasoner.client.client import Client
from napari_medreasoner.core.errors import MedReasonerError, UnreachableError
from napari_medreasoner.gui.session import BackendState

__all__ = ["LOST", "Backend", "Engines", "Server"]

LOST: Final = 'The backend has stopped; your work is kept. Press "Restart backend" to go on.'


_RENEW_SECONDS: Final = 20.0
"""A third of the lease: two renewals may be lost."""


class Engines(NamedTuple):
    """Names of what answers and what segments, and the version they came with."""

    reasoner: str
    segmenter: str
    version: str
    device: str = ""
    leaves_machine: bool = False

    @property
    def of_answer(self) -> str:
        """What is behind a mask that was asked for."""
        return f"{self.reasoner} + {self.segmenter} ({self.version})"

    @property
    def in_words(self) -> str:
        """For the status line."""
        place = f" · {self.device}" if self.device else ""
        remote = " · pictures leave the machine" if self.leaves_machine else ""
        return f"{self.reasoner} + {self.segmenter}{place}{remote}"

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
    on_engines : callable
        Told what a server runs, once it does; called on the background thread.
    """

    def __init__(
        self,
        server: Server,
        on_state: Callable[[BackendState], None],
        on_engines: Callable[[Engines], None],
    ) -> None:
        self._server = server
        self._on_state = on_state
        self._on_engines = on_engines
        self._starting = asyncio.Lock()
        self._client: Client | None = None
        self._engines: Engines | None = None
        self._lost = False
        self._watcher: asyncio.Task[None] | None = None
        self._staying: asyncio.Task[None] | None = None

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
            self._engines = Engines(
                can.crm.name,
                can.asm.name,
                health.version,
                can.crm.device if can.crm.device == can.asm.device else "",
                can.crm.leaves_machine,
            )
            self._on_engines(self._engines)
        return self._engines

    async def use(self, server: Server) -> None:
        """Turn to another server, ending the one in use.

        Raises
        ------
        MedReasonerError
            When it cannot be started or reached.
        """
        async with self._starting:
            await self._end()
            self._server = server
            self._client = await self._start()
            await self.engines(self._client)

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
        if self._staying is not None:
            self._staying.cancel()
            self._staying = None

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
        self._staying = asyncio.create_task(_stay(client))
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


async def _stay(client: Client) -> None:
    """Renew the lease for as long as the client is used: its images are kept meanwhile."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        with suppress(MedReasonerError):  # whoever watches the server tells that it is gone
            await client.renew_lease()
