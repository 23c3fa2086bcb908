"""Of one client only the newest request of a kind goes on: what it asked before is stale."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Newest"]


class Newest:
    """Knows which request of each client is the newest; for use on one event loop."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], asyncio.Future[None]] = {}

    @contextmanager
    def claim(self, client: str | None, kind: str) -> Iterator[asyncio.Future[None]]:
        """Be the newest request of a kind for as long as the block lasts, or until a newer comes.

        Parameters
        ----------
        client : str or None
            Who asks; without a name nobody is superseded.
        kind : str
            What is asked for.

        Yields
        ------
        asyncio.Future
            Done as soon as the claim is lost.
        """
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if client is None:
            yield lost
            return
        key = (client, kind)
        before = self._newest.get(key)
        if before is not None and not before.done():
            before.set_result(None)
        self._newest[key] = lost
        try:
            yield lost
        finally:
            if self._newest.get(key) is lost:
                del self._newest[key]
