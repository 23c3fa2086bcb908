"""A backend that somebody else started, here or on another machine."""

from __future__ import annotations

import asyncio
from typing import Final

from napari_medreasoner.client.client import Client
from napari_medreasoner.core.errors import BackendError, UnreachableError

__all__ = ["RemoteServer"]

_LOOK_SECONDS: Final = 5.0
_MISSES: Final = 3
"""Looks in a row without an answer after which the server is lost: 15 seconds."""


class RemoteServer:
    """A server that is reached, not started; it outlives this process.

    Parameters
    ----------
    url : str
        As in "https://gpu.example:8765", or "http://127.0.0.1:8765" at the end of a tunnel.
    token : str
        Its token.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._reached = False

    @property
    def running(self) -> bool:
        """Whether it answered at the start and was not left since."""
        return self._reached

    async def start(self) -> None:
        """See whether it answers, knows the token and speaks the same protocol.

        Raises
        ------
        SettingsError, BackendError
            When it does not.
        """
        async with self.client() as client:
            await client.health()
        self._reached = True

    def client(self) -> Client:
        """Return a new client of it."""
        return Client(self._url, self._token)

    async def watch(self) -> int | None:
        """Look after it until it has not answered for a while."""
        async with self.client() as client:
            missed = 0
            while missed < _MISSES:
                await asyncio.sleep(_LOOK_SECONDS)
                try:
                    await client.health()
                    missed = 0
                except UnreachableError:
                    missed += 1
                except BackendError:  # it answers, but is another one now
                    break
        self._reached = False
        return None

    async def stop(self) -> None:
        """Leave it."""
        self._reached = False
