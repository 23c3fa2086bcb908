"""The routes of `napari_medreasoner.core.protocol`, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse
from numpy.typing import NDArray

from napari_medreasoner import __version__
from napari_medreasoner.core.errors import ImageError, TooLargeError
from napari_medreasoner.core.protocol import (
    ASK,
    CAPABILITIES,
    CLIENT_HEADER,
    HEALTH,
    IMAGES,
    LEASE,
    METRICS,
    PROPAGATE,
    SEGMENT,
    AskRequest,
    Capabilities,
    ErrorBody,
    Event,
    Health,
    ImageHeader,
    PropagateRequest,
    SegmentReply,
    SegmentRequest,
    Sha256,
    content_hash,
)
from napari_medreasoner.server import streams
from napari_medreasoner.server.backend import Backend
from napari_medreasoner.server.body import read_body
from napari_medreasoner.server.streams import Stops, encoded, unless_stopped

__all__ = ["router"]


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


async def _client(
    backend: Annotated[Backend, Depends(_backend)],
    name: Annotated[str | None, Header(alias=CLIENT_HEADER, pattern=r"^[0-9a-f]{32}$")] = None,
) -> str | None:
    """Who asks; whoever asks is there, so the lease is renewed."""
    backend.leases.reap()
    backend.leases.renew(name)
    return name


BackendDep = Annotated[Backend, Depends(_backend)]
ClientDep = Annotated[str | None, Depends(_client)]
ImageHash = Annotated[Sha256, Path()]

_FAULTS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "Client and server do not understand each other.",
        401: "The token is missing or wrong.",
        403: "Foreign Host or Origin, or no consent.",
        404: "The image, or the route, is not known.",
        405: "The route has no such method.",
        409: "The same client has asked for something newer.",
        413: "The request is too large.",
        422: "The request cannot be used.",
        429: "Too many requests are waiting.",
        500: "The server or an engine failed.",
        503: "Out of memory, or shutting down.",
    }.items()
}
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events, one by one."}
}

router = APIRouter(responses=_FAULTS)


@router.get(HEALTH)
async def health(backend: BackendDep) -> Health:
    """The server is up."""
    return Health(version=__version__, waiting=backend.worker.waiting)


@router.get(CAPABILITIES)
async def capabilities(backend: BackendDep) -> Capabilities:
    """What this server can do."""
    return backend.capabilities


@router.get(
    METRICS,
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
async def metrics(backend: BackendDep) -> Response:
    """What was counted since the start."""
    return Response(backend.metrics.text(), media_type="text/plain; version=1.0.0")


@router.put(LEASE, status_code=204)
async def renew_lease(client: ClientDep) -> None:
    """Stay: the client's images are kept for another minute."""


@router.delete(LEASE, status_code=204)
async def end_lease(client: ClientDep, backend: BackendDep) -> None:
    """Go: the client's images are forgotten now."""
    if client is not None:
        backend.leases.end(client)


@router.head(IMAGES + "/{sha256}", status_code=204)
async def has_image(sha256: ImageHash, backend: BackendDep, client: ClientDep) -> None:
    """Whether the server holds an image."""
    backend.images.get(sha256)
    backend.leases.renew(client, sha256)


@router.put(IMAGES + "/{sha256}", status_code=204)
async def put_image(
    sha256: ImageHash,
    header: Annotated[ImageHeader, Query()],
    request: Request,
    backend: BackendDep,
    client: ClientDep,
) -> None:
    """Take an image's raw bytes, compressed with zstd where the request says so."""
    if header.nbytes > backend.capabilities.max_body_bytes:
        raise TooLargeError(f"The image of {header.nbytes} bytes is too large; crop it.")
    body = await read_body(request, header.nbytes)
    image: NDArray[Any] = np.frombuffer(body, header.dtype).reshape(header.shape)
    if await asyncio.to_thread(content_hash, image) != sha256:
        raise ImageError("The image arrived damaged (its hash differs); upload it again.")
    backend.images.put(sha256, image)
    backend.leases.renew(client, sha256)


@router.post(ASK, response_model=None, responses=_STREAM)
async def ask(question: AskRequest, backend: BackendDep, client: ClientDep) -> EventSourceResponse:
    """Answer a question with a stream of events."""
    image = _image(backend, client, question.image.sha256)
    return _stream(backend, client, ASK, partial(backend.workbench.ask, image, question))


@router.post(PROPAGATE, response_model=None, responses=_STREAM)
async def propagate(
    wanted: PropagateRequest, backend: BackendDep, client: ClientDep
) -> EventSourceResponse:
    """Follow a structure through a volume, slice by slice."""
    image = _image(backend, client, wanted.image.sha256)
    return _stream(backend, client, PROPAGATE, partial(backend.workbench.propagate, image, wanted))


@router.post(SEGMENT)
async def segment(
    prompts: SegmentRequest, request: Request, backend: BackendDep, client: ClientDep
) -> SegmentReply:
    """Turn prompts into a mask; the work is dropped when the client leaves before its turn."""
    image = _image(backend, client, prompts.image.sha256)
    with backend.newest.claim(client, SEGMENT) as superseded:
        work = backend.worker.run(partial(backend.workbench.segment, image, prompts, client))
        return await unless_stopped(request, work, Stops(superseded, backend.ending))


def _image(backend: Backend, client: str | None, sha256: str) -> NDArray[Any]:
    image = backend.images.get(sha256)
    backend.leases.renew(client, sha256)
    return image


# FastAPI's own event streams beat every 15 s only, and end late when the client leaves.
def _stream(
    backend: Backend, client: str | None, kind: str, make: Callable[[], Generator[Event]]
) -> EventSourceResponse:
    backend.worker.require_room()

    async def lines() -> AsyncIterator[bytes]:
        with backend.newest.claim(client, kind) as superseded:
            events = backend.worker.stream(make, beat=streams.KEEP_ALIVE_SECONDS)
            stops = Stops(superseded, backend.ending)
            async for line in encoded(events, stops, lambda: backend.leases.renew(client)):
                yield line

    return EventSourceResponse(lines(), headers={"Cache-Control": "no-store"})
