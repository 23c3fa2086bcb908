"""Who may speak to the server, and how much: checked before any route.

Host and Origin stop web pages (DNS rebinding, cross-site requests); any other program can
forge both, so the token is the lock. The server is no web site and sets no CORS header.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from napari_medreasoner.core.errors import (
    BackendError,
    ForbiddenError,
    TooLargeError,
    UnauthorizedError,
)
from napari_medreasoner.core.protocol import IMAGES
from napari_medreasoner.server.replies import error_response

__all__ = ["MAX_JSON_BYTES", "Gatekeeper"]

MAX_JSON_BYTES: Final = 4 * 2**20
"""Largest body of a request that is not an image."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


class Gatekeeper:
    """ASGI middleware: Host, Origin, token and body length, in this order.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    token : str
        What `Authorization: Bearer` must hold.
    max_body_bytes : int
        Largest image; other bodies end at `MAX_JSON_BYTES`.
    names : tuple of str
        Names of this machine under which other machines may reach the server.
    """

    def __init__(
        self, app: ASGIApp, token: str, max_body_bytes: int, names: tuple[str, ...] = ()
    ) -> None:
        allowed = "|".join(re.escape(name.lower()) for name in (*_LOOPBACK, *names))
        self._host = re.compile(rf"({allowed})(:[0-9]{{1,5}})?".encode("ascii"))
        self._names = " or ".join(("127.0.0.1", "localhost", *names))
        self._app = app
        self._authorization = f"Bearer {token}".encode("ascii")
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        limit = self._max_body_bytes if scope["path"].startswith(IMAGES) else MAX_JSON_BYTES
        fault = self._fault(scope) or _declared_too_large(scope, limit)
        if fault is not None:
            await error_response(fault)(scope, receive, send)
            return
        await self._app(scope, _counted(receive, limit), send)

    def _fault(self, scope: Scope) -> BackendError | None:
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or not self._host.fullmatch(hosts[0].lower()):
            return ForbiddenError(f"The server answers only under {self._names}; use that.")
        if _values(scope, b"origin"):
            return ForbiddenError("The server does not answer web pages; use the plugin.")
        sent = _values(scope, b"authorization")
        if len(sent) != 1 or not hmac.compare_digest(sent[0], self._authorization):
            return UnauthorizedError("The token is missing or wrong; enter the server's token.")
        return None


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The request is larger than the {limit} bytes the server takes.")


def _declared_too_large(scope: Scope, limit: int) -> TooLargeError | None:
    # The HTTP parser has already refused a Content-Length that is not a number.
    lengths = _values(scope, b"content-length")
    return _too_large(limit) if any(int(length) > limit for length in lengths) else None


def _counted(receive: Receive, limit: int) -> Receive:
    """Stop a body that grows beyond the limit, whatever length it declared."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            # FastAPI turns any other exception in a body into a plain 400.
            raise HTTPException(TooLargeError.http_status, str(_too_large(limit)))
        return message

    return counted
