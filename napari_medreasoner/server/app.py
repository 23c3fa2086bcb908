"""The routes of `napari_medreasoner.core.protocol`, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from napari_medreasoner import __version__
from napari_medreasoner.core.errors import ImageError, TooLargeError
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.core.protocol import (
    ASK,
    CAPABILITIES,
    HEALTH,
    IMAGES,
    SEGMENT,
    AskRequest,
    Capabilities,
    Event,
    Health,
    ImageHeader,
    SegmentReply,
    SegmentRequest,
    Sha256,
    StatusEvent,
    content_hash,
)
from napari_medreasoner.engines.base import Reasoner, Segmenter
from napari_medreasoner.server.replies import add_error_handlers
from napari_medreasoner.server.security import Gatekeeper
from napari_medreasoner.server.settings import Settings
from napari_medreasoner.server.store import ImageStore
from napari_medreasoner.server.workbench import Workbench
from napari_medreasoner.server.worker import Worker

__all__ = ["create_app"]

T = TypeVar("T")

# Also the longest time until a client that left in silence is noticed.
_KEEP_ALIVE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Backend:
    """What the routes share."""

    capabilities: Capabilities
    images: ImageStore
    workbench: Workbench
    worker: Worker


async def _backend(request: Request) -> _Backend:
    backend: _Backend = request.app.state.backend
    return backend


BackendDep = Annotated[_Backend, Depends(_backend)]
ImageHash = Annotated[Sha256, Path()]

router = APIRouter()


@router.get(HEALTH)
async def health() -> Health:
    """The server is up."""
    return Health(version=__version__)


@router.get(CAPABILITIES)
async def capabilities(backend: BackendDep) -> Capabilities:
    """What this server can do."""
    return backend.capabilities


@router.head(IMAGES + "/{sha256}", status_code=204)
async def has_image(sha256: ImageHash, backend: BackendDep) -> None:
    """Whether the server holds an image."""
    backend.images.get(sha256)


@router.put(IMAGES + "/{sha256}", status_code=204)
async def put_image(
    sha256: ImageHash,
    header: Annotated[ImageHeader, Query()],
    request: Request,
    backend: BackendDep,
) -> None:
    """Take an image's raw bytes."""
    if header.nbytes > backend.capabilities.max_body_bytes:
        raise TooLargeError(f"The image of {header.nbytes} bytes is too large; crop it.")
    body = await _read_exactly(request, header.nbytes)
    image: NDArray[Any] = np.frombuffer(body, header.dtype).reshape(header.shape)
    if await asyncio.to_thread(content_hash, image) != sha256:
        raise ImageError("The image arrived damaged (its hash differs); upload it again.")
    backend.images.put(sha256, image)


# FastAPI's own event streams beat every 15 s only, and end late when the client leaves.
@router.post(ASK, response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def ask(question: AskRequest, backend: BackendDep) -> EventSourceResponse:
    """Answer a question with a stream of events."""
    image = backend.images.get(question.image.sha256)
    events = backend.worker.stream(
        partial(backend.workbench.ask, image, question), beat=_KEEP_ALIVE_SECONDS
    )
    return EventSourceResponse(_encoded(events), headers={"Cache-Control": "no-store"})


@router.post(SEGMENT)
async def segment(prompts: SegmentRequest, request: Request, backend: BackendDep) -> SegmentReply:
    """Turn prompts into a mask; the work is dropped when the client leaves before its turn."""
    image = backend.images.get(prompts.image.sha256)
    work = backend.worker.run(partial(backend.workbench.segment, image, prompts))
    return await _unless_gone(request, work)


async def _read_exactly(request: Request, length: int) -> bytearray:
    # Grown as the bytes come: a header that promises much must not reserve memory.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > length:
            break
    if len(body) != length:
        raise ImageError(
            f"The image's bytes do not fit its shape and type ({length} bytes expected); "
            "upload it again."
        )
    return body


def _line(event: Event) -> bytes:
    return format_sse_event(data_str=event.model_dump_json(), event=event.type)


async def _encoded(events: AsyncGenerator[Event | None]) -> AsyncIterator[bytes]:
    yield _line(StatusEvent(stage="waiting"))
    async for event in events:
        yield KEEPALIVE_COMMENT if event is None else _line(event)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Await some work, but cancel it as soon as the client leaves."""
    job = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientDisconnect
        return job.result()
    finally:
        job.cancel()
        gone.cancel()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    backend: _Backend = app.state.backend
    await backend.worker.run(backend.workbench.warm_up)
    yield
    backend.worker.close()


def create_app(settings: Settings, reasoner: Reasoner, segmenter: Segmenter) -> FastAPI:
    """Build the application over two engines.

    Parameters
    ----------
    settings : Settings
        Token and limits.
    reasoner : Reasoner
        The CRM.
    segmenter : Segmenter
        The ASM; warmed up when the application starts.
    """
    app = FastAPI(
        title="medreasoner",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.backend = _Backend(
        capabilities=Capabilities(
            crm=reasoner.info,
            asm=segmenter.info,
            max_body_bytes=settings.max_body_bytes,
            templates=tuple(BUILT_IN),
        ),
        images=ImageStore(settings.image_cache_bytes),
        workbench=Workbench(reasoner, segmenter),
        worker=Worker(),
    )
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(Gatekeeper, token=settings.token, max_body_bytes=settings.max_body_bytes)
    return app
