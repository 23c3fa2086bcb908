"""Errors as replies: every one is an `ErrorBody`, none shows a traceback."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from napari_medreasoner.core.errors import (
    BusyError,
    InputError,
    MedReasonerError,
    ProtocolError,
    TooLargeError,
)
from napari_medreasoner.core.protocol import ErrorBody

__all__ = ["add_error_handlers", "error_response"]

_CLIENT_GONE: Final = 499
_RETRY_SECONDS: Final = 5
_BY_STATUS: Final = {404: "there is no such route", 405: "the route has no such method"}


def _response(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse(ErrorBody(code=code, message=message).model_dump(), status)


def error_response(error: MedReasonerError) -> JSONResponse:
    """Reply that reports an error of ours."""
    reply = _response(error.http_status, error.code, str(error))
    if isinstance(error, BusyError):
        reply.headers["Retry-After"] = str(_RETRY_SECONDS)
    return reply


async def _on_ours(_: Request, error: MedReasonerError) -> Response:
    return error_response(error)


async def _on_invalid(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    # The offending value itself is left out: it may be a question about a patient.
    return error_response(InputError(f"The request is wrong at {place}: {first['msg']}."))


async def _on_http(_: Request, error: HTTPException) -> Response:
    if error.status_code == TooLargeError.http_status:
        return error_response(TooLargeError(error.detail))
    reason = _BY_STATUS.get(error.status_code, error.detail)
    message = f"The server refused the request ({reason}); use the client of the same version."
    return _response(error.status_code, ProtocolError.code, message)


async def _on_gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=_CLIENT_GONE)  # nobody reads it; an error would fill the log


async def _on_unexpected(_: Request, __: Exception) -> Response:
    # Starlette raises the exception again after this reply, so the server logs it.
    return _response(
        500, MedReasonerError.code, "The server failed on this request; its log says where."
    )


def add_error_handlers(app: FastAPI) -> None:
    """Make an application answer every error with an `ErrorBody`."""
    app.exception_handler(MedReasonerError)(_on_ours)
    app.exception_handler(RequestValidationError)(_on_invalid)
    app.exception_handler(HTTPException)(_on_http)
    app.exception_handler(ClientDisconnect)(_on_gone)
    app.exception_handler(Exception)(_on_unexpected)
