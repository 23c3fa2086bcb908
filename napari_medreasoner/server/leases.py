"""Which client holds which images, and until when.

A client that has not been heard of for a minute is gone, whether it said so or not, and its
patients' images leave the server's memory with it. One that comes back uploads them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["LEASE_SECONDS", "Leases"]

LEASE_SECONDS: Final = 60.0
"""How long a client is believed to be there after its last request."""


@dataclass(slots=True)
class _Lease:
    until: float
    images: set[str] = field(default_factory=set)


class Leases:
    """Leases of clients that name themselves; for use on one event loop.

    Parameters
    ----------
    forget : callable
        Given the hashes of images that no lease holds any more.
    clock : callable, optional
        Seconds, monotonic.
    """

    def __init__(
        self, forget: Callable[[set[str]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._forget = forget
        self._clock = clock
        self._leases: dict[str, _Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def renew(self, client: str | None, sha256: str | None = None) -> None:
        """Note that a client is there, and which image it works on."""
        if client is None:
            return
        lease = self._leases.setdefault(client, _Lease(0.0))
        lease.until = self._clock() + LEASE_SECONDS
        if sha256 is not None:
            lease.images.add(sha256)

    def end(self, client: str) -> None:
        """End the lease of a client that says goodbye."""
        lease = self._leases.pop(client, None)
        if lease is not None:
            self._release(lease)

    def reap(self) -> None:
        """End the leases of clients that went in silence."""
        now = self._clock()
        for client in [name for name, lease in self._leases.items() if lease.until < now]:
            self.end(client)

    def _release(self, lease: _Lease) -> None:
        held = set().union(*(other.images for other in self._leases.values()))
        if alone := lease.images - held:
            self._forget(alone)
