"""The asynchronous client of the backend, for the plugin and the command line alike."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

import httpx
import numpy as np
from httpx_sse import ServerSentEvent, aconnect_sse
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.client.upload import chunks, compressed
from napari_medreasoner.client.wire import INTERRUPTED, error_of_reply, wire_errors
from napari_medreasoner.core.errors import (
    MedReasonerError,
    ProtocolError,
    SettingsError,
    UnknownImageError,
    UnreachableError,
    error_from_code,
)
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.prompts import PromptTemplate, check_question
from napari_medreasoner.core.protocol import (
    ASK,
    CAPABILITIES,
    CLIENT_HEADER,
    HEALTH,
    IMAGES,
    LEASE,
    PROPAGATE,
    PROTOCOL_VERSION,
    SEGMENT,
    AskRequest,
    Capabilities,
    DoneEvent,
    ErrorEvent,
    Event,
    EventAdapter,
    Health,
    MaskEvent,
    PropagatedEvent,
    PropagateRequest,
    SegmentReply,
    SegmentRequest,
    SliceEvent,
    ThinkEvent,
)

__all__ = ["Client", "SegmentResult"]

M = TypeVar("M", bound=BaseModel)

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_CONNECT_SECONDS: Final = 5.0
_QUICK_SECONDS: Final = 10.0
_GOODBYE_SECONDS: Final = 1.0
_SILENCE_SECONDS: Final = 30.0  # many times the server's keep-alive comments
_SEGMENT_SECONDS: Final = 120.0
_UPLOAD_SECONDS: Final = 600.0
_WRONG_SHAPE: Final = "A mask arrived with the wrong shape; segment again."
_JSON: Final = {"Content-Type": "application/json"}


def _timeout(read: float) -> httpx.Timeout:
    return httpx.Timeout(read, connect=_CONNECT_SECONDS)


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """What the segmenter made of some prompts.

    Attributes
    ----------
    mask : ndarray of bool, shape (row, column)
        Of the slice.
    score : float
        Confidence, 0 to 1.
    milliseconds : float
        Time in the segmenter.
    """

    mask: NDArray[np.bool_]
    score: float
    milliseconds: float


class Client:
    """Speaks to one backend; use it as an asynchronous context manager.

    Parameters
    ----------
    base_url : str
        As in "http://127.0.0.1:8765".
    token : str
        The server's token.
    transport : httpx.AsyncBaseTransport, optional
        Instead of the network, for tests.

    Raises
    ------
    SettingsError
        When address or token cannot be used.
    """

    def __init__(
        self, base_url: str, token: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        try:
            self._http = httpx.AsyncClient(
                base_url=base_url,
                headers={"Authorization": f"Bearer {token}", CLIENT_HEADER: uuid4().hex},
                timeout=_timeout(_QUICK_SECONDS),
                transport=transport,
                trust_env=False,  # a proxy must never see images or the token
                # A hospital's own authority is in the system's store, or in SSL_CERT_FILE.
                verify=ssl.create_default_context() if base_url.startswith("https:") else True,
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise SettingsError(
                "The backend's address or token cannot be used; the address looks like "
                "http://127.0.0.1:8765 and the token is plain text."
            ) from error

        self._used = False
        # On this machine copying is quicker than compressing.
        self._compress = self._http.base_url.host not in _LOOPBACK

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; running requests fail, and the server forgets the images."""
        if self._used:
            with suppress(MedReasonerError):  # a server that cannot hear it forgets by itself
                await self.end_lease()
        await self._http.aclose()

    async def renew_lease(self) -> None:
        """Tell the server that this client is still there, so that it keeps its images."""
        await self._request("PUT", LEASE)

    async def end_lease(self) -> None:
        """Have the server forget this client's images."""
        await self._request("DELETE", LEASE, timeout=httpx.Timeout(_GOODBYE_SECONDS))

    async def health(self) -> Health:
        """Ask whether the server is up and speaks the same protocol.

        Raises
        ------
        ProtocolError
            When it speaks another version.
        BackendError
            When it cannot be reached or refuses the token.
        """
        health = _read(Health, await self._request("GET", HEALTH))
        if health.protocol != PROTOCOL_VERSION:
            raise ProtocolError(
                f"The backend speaks protocol {health.protocol}, this program "
                f"{PROTOCOL_VERSION}; install the same version on both sides."
            )
        return health

    async def capabilities(self) -> Capabilities:
        """Ask what the server can do."""
        return _read(Capabilities, await self._request("GET", CAPABILITIES))

    def ask(
        self,
        picture: Picture,
        question: str,
        *,
        modality: str = "",
        template: PromptTemplate | None = None,
        consent: bool = False,
    ) -> AsyncGenerator[Event]:
        """Ask a question about a picture; closing the iterator stops the reasoner.

        Parameters
        ----------
        picture : Picture
            Uploaded first if the server does not hold it.
        question : str
            As the user typed it.
        modality : str
            As in "CT"; empty when not known.
        template : PromptTemplate, optional
            Instead of the server's default.
        consent : bool
            The user agreed that the picture leaves the server's machine.

        Yields
        ------
        Event
            The last one is the done event; without it nothing before is an answer.

        Raises
        ------
        QuestionError
            When the question is empty or too long.
        UnreachableError
            When the stream ended early or arrived damaged.
        MedReasonerError
            Whatever the server reports.
        """
        request = partial(
            AskRequest,
            question=check_question(question),
            modality=modality,
            template=template,
            consent=consent,
        )
        return self._streamed(ASK, picture, request)

    def propagate(
        self,
        picture: Picture,
        prompts: Prompts,
        *,
        span: tuple[int, int] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> AsyncGenerator[Event]:
        """Follow a structure through a volume; closing the iterator stops the work.

        Parameters
        ----------
        picture : Picture
            The prompted or corrected slice.
        prompts : Prompts
            On that slice; may be empty when there is a mask.
        span : (int, int), optional
            First and last slice that may be visited.
        mask : ndarray of bool, shape (row, column), optional
            Mask of that slice, as the user corrected it.

        Yields
        ------
        Event
            A slice event for each slice; the last one is the propagated event, and without it
            what came before is not all.

        Raises
        ------
        UnreachableError
            When the stream ended early.
        MedReasonerError
            Whatever the server reports.
        """
        packed = None if mask is None else PackedMask.pack(mask)
        request = partial(PropagateRequest, prompts=prompts, span=span, mask=packed)
        return self._streamed(PROPAGATE, picture, request)

    async def segment(
        self, picture: Picture, prompts: Prompts, *, refine: bool = False
    ) -> SegmentResult:
        """Turn prompts into a mask; cancelling drops the work if it has not begun.

        Parameters
        ----------
        picture : Picture
            The slice.
        prompts : Prompts
            All of them, not only the newest.
        refine : bool
            Only clicks were added since the last mask of this picture.

        Raises
        ------
        ProtocolError
            When the mask arrived damaged.
        MedReasonerError
            Whatever the server reports.
        """
        ref = await asyncio.to_thread(lambda: picture.ref)
        body = SegmentRequest(image=ref, prompts=prompts, refine=refine).model_dump_json()
        try:
            response = await self._post_segment(body)
        except UnknownImageError:
            await self._upload(picture.image)
            response = await self._post_segment(body)
        reply = _read(SegmentReply, response)
        if reply.mask.shape != picture.shape:
            raise ProtocolError(_WRONG_SHAPE)
        mask = await asyncio.to_thread(reply.mask.unpack)
        return SegmentResult(mask, reply.score, reply.milliseconds)

    async def _streamed(
        self, route: str, picture: Picture, request: Callable[..., BaseModel]
    ) -> AsyncGenerator[Event]:
        ref = await asyncio.to_thread(lambda: picture.ref)
        body = request(image=ref).model_dump_json()
        try:
            async with aclosing(self._events(route, body, picture)) as events:
                async for event in events:
                    yield event
        except UnknownImageError:  # said before any event
            await self._upload(picture.image)
            async with aclosing(self._events(route, body, picture)) as events:
                async for event in events:
                    yield event

    async def _post_segment(self, body: str) -> httpx.Response:
        return await self._request(
            "POST", SEGMENT, content=body, headers=_JSON, timeout=_timeout(_SEGMENT_SECONDS)
        )

    async def _upload(self, image: UploadImage) -> None:
        header = await asyncio.to_thread(lambda: image.header)
        self._used = True
        await self._request(
            "PUT",
            f"{IMAGES}/{image.sha256}",
            params={"dtype": header.dtype, "shape": list(header.shape)},
            content=compressed(image.array) if self._compress else chunks(image.array),
            headers={"Content-Encoding": "zstd"}
            if self._compress
            else {"Content-Length": str(header.nbytes)},
            timeout=_timeout(_UPLOAD_SECONDS),
        )

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        with wire_errors():
            response = await self._http.request(method, path, **options)
        if response.is_error:
            raise error_of_reply(response)
        return response

    async def _events(self, route: str, body: str, picture: Picture) -> AsyncGenerator[Event]:
        trace = hashlib.sha256()
        with wire_errors():
            async with aconnect_sse(
                self._http,
                "POST",
                route,
                content=body,
                headers=dict(_JSON),
                timeout=_timeout(_SILENCE_SECONDS),
            ) as source:
                if source.response.is_error:
                    await source.response.aread()
                    raise error_of_reply(source.response)
                async with aclosing(source.aiter_sse()) as lines:
                    async for line in lines:
                        event = _event(line)
                        if isinstance(event, ThinkEvent):
                            trace.update(event.text.encode())
                        if _shape_of(event) not in (None, picture.shape):
                            raise ProtocolError(_WRONG_SHAPE)
                        _check_end(event, trace.hexdigest())
                        yield event
                        if isinstance(event, DoneEvent | PropagatedEvent):
                            return
        raise UnreachableError(INTERRUPTED)


def _event(line: ServerSentEvent) -> Event:
    try:
        return EventAdapter.validate_json(line.data)
    except ValidationError as error:
        raise ProtocolError(
            "The backend sent an event this program does not know; install the same version on "
            "both sides."
        ) from error


def _shape_of(event: Event) -> tuple[int, ...] | None:
    return event.mask.shape if isinstance(event, MaskEvent | SliceEvent) else None


def _check_end(event: Event, trace_sha256: str) -> None:
    if isinstance(event, ErrorEvent):
        raise error_from_code(event.code, event.message)
    if isinstance(event, DoneEvent) and event.trace_sha256 != trace_sha256:
        raise UnreachableError(INTERRUPTED)


def _read(model: type[M], response: httpx.Response) -> M:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise ProtocolError(
            "The backend's reply cannot be read; install the same version on both sides."
        ) from error
