"""Connections that send or read too slowly are closed.

uvicorn has no deadline for the receipt of a request (its issue 157), and an ASGI middleware
sees neither headers that never end nor a client that does not read; so the deadlines stand
where the bytes arrive.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["DeadlineProtocol"]

_HEADER_SECONDS: Final = 15.0
"""From the first byte of a request, or from the connection, to the end of its headers."""

_BODY_SECONDS: Final = 10.0
_BODY_BYTES: Final = 2**17
"""In every period of a body this many bytes must arrive, or its end: 13 kB a second."""

_UNREAD_SECONDS: Final = 10.0
"""How long a reply may wait for a client that does not read."""

_SEND_BYTES: Final = 2**16
"""Of the kernel's buffer: left to itself it takes megabytes before a client that does not read
is noticed. Replies are small, and uploads go the other way."""


class _Alarm:
    """Breaks a connection off unless it is put off."""

    def __init__(self, transport: asyncio.Transport) -> None:
        # Not a method of the protocol, which holds its alarms: such a circle would stay in memory
        # until the garbage collector's next full round.
        self._transport = transport
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        return self._handle is not None

    def set(self, seconds: float) -> None:
        self.clear()
        # Not closed, which would first wait for what is unsent.
        self._handle = asyncio.get_running_loop().call_later(seconds, self._transport.abort)

    def clear(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with deadlines for headers, bodies and readers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._headers_due = _Alarm(transport)
        self._body_due = _Alarm(transport)
        self._read_due = _Alarm(transport)
        self._body_bytes = 0
        raw: socket.socket = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self._headers_due.set(_HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        for alarm in (self._headers_due, self._body_due, self._read_due):
            alarm.clear()
        super().connection_lost(exc)
        # uvicorn does so only when no error broke the connection; all of it would live on in the
        # timer, for as long as an idle one is kept.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the deadline depends on what the parser then waits for."""
        super().data_received(data)
        self._body_bytes += len(data)
        state = self.conn.their_state
        if state is h11.IDLE:
            if not self._headers_due.is_set:
                self._headers_due.set(_HEADER_SECONDS)
        else:
            self._headers_due.clear()
        if state is not h11.SEND_BODY:
            self._body_due.clear()
        elif not self._body_due.is_set or self._body_bytes >= _BODY_BYTES:
            self._body_bytes = 0
            self._body_due.set(_BODY_SECONDS)

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._read_due.set(_UNREAD_SECONDS)

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        self._read_due.clear()
