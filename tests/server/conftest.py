from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial, partialmethod

import httpx
import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal

from napari_medreasoner.core.protocol import IMAGES, content_hash
from napari_medreasoner.server.app import create_app
from napari_medreasoner.server.settings import Settings
from tests.fakes import FakeReasoner, FakeVolumeSegmenter

TOKEN = "canary-token-0123456789"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


class Http:
    """Sends requests to an application, blocking until the whole reply is there."""

    def __init__(self, app) -> None:
        self.app = app
        self._stack = ExitStack()

    def __enter__(self) -> "Http":
        self._portal = self._stack.enter_context(start_blocking_portal())
        lifespan = self.app.router.lifespan_context(self.app)
        self._stack.enter_context(self._portal.wrap_async_context_manager(lifespan))
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self._client = self._stack.enter_context(self._portal.wrap_async_context_manager(client))
        return self

    def __exit__(self, *fault) -> None:
        self._stack.close()

    def request(self, method, path, *, headers=None, **options) -> httpx.Response:
        if not isinstance(headers, list):
            headers = {**AUTH, **(headers or {})}
        send = partial(self._client.request, method, path, headers=headers, **options)
        return self._portal.call(send)

    get = partialmethod(request, "GET")
    put = partialmethod(request, "PUT")
    post = partialmethod(request, "POST")
    head = partialmethod(request, "HEAD")
    delete = partialmethod(request, "DELETE")
    options = partialmethod(request, "OPTIONS")


class Server:
    """An application over fakes and a client of it."""

    def __init__(self, reasoner=None, segmenter=None, **settings) -> None:
        self.reasoner = reasoner or FakeReasoner()
        self.segmenter = segmenter or FakeVolumeSegmenter()
        self.app = create_app(Settings(token=TOKEN, **settings), self.reasoner, self.segmenter)
        self.http = Http(self.app)

    def put(self, image, *, sha256=None, body=None, **query):
        query = {"dtype": image.dtype.name, "shape": list(image.shape), **query}
        return self.http.put(
            f"{IMAGES}/{sha256 or content_hash(image)}",
            params=query,
            content=image.tobytes() if body is None else body,
        )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(max_body_bytes=100_000, image_cache_bytes=100_000)
    with server.http:
        yield server


@pytest.fixture
async def wire(server) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(server.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers=AUTH
    ) as http:
        yield http


@pytest.fixture
def picture() -> np.ndarray:
    return np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
