"""The one boundary at which httpx's errors become errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx
from httpx_sse import SSEError
from pydantic import ValidationError

from napari_medreasoner.core.errors import (
    MedReasonerError,
    ProtocolError,
    UnreachableError,
    error_from_code,
)
from napari_medreasoner.core.protocol import ErrorBody

__all__ = ["INTERRUPTED", "error_of_reply", "wire_errors"]

INTERRUPTED: Final = (
    "The backend was interrupted in the middle of its answer; what had arrived is kept: start "
    "the backend again if it is gone, and repeat."
)

_SENTENCES: Final[dict[type[httpx.TransportError], str]] = {
    httpx.ConnectError: "No backend answers at this address; start it, or correct the address.",
    httpx.ConnectTimeout: "The backend's address did not answer in time; check it and the tunnel.",
    httpx.PoolTimeout: "Too many requests are waiting for the backend; try again in a moment.",
    httpx.TimeoutException: (
        "The backend went silent in the middle of a request; look at its log, or restart it."
    ),
    httpx.UnsupportedProtocol: "The backend's address is not an http address; correct it.",
    httpx.TransportError: INTERRUPTED,
}
"""By the nearest class; what is not listed happened while a request was under way."""


def _sentence(error: httpx.TransportError) -> str:
    return next(_SENTENCES[kind] for kind in type(error).__mro__ if kind in _SENTENCES)


@contextmanager
def wire_errors() -> Iterator[None]:
    """Turn httpx's errors into `UnreachableError` or `ProtocolError`."""
    try:
        yield
    except httpx.RequestError as error:
        # An SSEError is a TransportError too, but says that the reply is no event stream.
        if isinstance(error, httpx.TransportError) and not isinstance(error, SSEError):
            raise UnreachableError(_sentence(error)) from error
        raise ProtocolError(
            "The reply is not one of a medreasoner server; correct the address."
        ) from error


def error_of_reply(response: httpx.Response) -> MedReasonerError:
    """Error that a reply reports; its body must have been read."""
    try:
        body = ErrorBody.model_validate_json(response.content)
    except ValidationError:
        return ProtocolError(
            f"The reply (status {response.status_code}) is not one of a medreasoner server; "
            "correct the address."
        )
    return error_from_code(body.code, body.message)
