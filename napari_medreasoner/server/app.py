"""The application: routes, guard and engines put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from napari_medreasoner import __version__
from napari_medreasoner.engines.base import Reasoner, Segmenter
from napari_medreasoner.server.backend import Backend, build
from napari_medreasoner.server.metrics import Timed
from napari_medreasoner.server.replies import add_error_handlers
from napari_medreasoner.server.routes import router
from napari_medreasoner.server.security import Gatekeeper
from napari_medreasoner.server.settings import Settings

__all__ = ["create_app"]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    backend: Backend = app.state.backend
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
    backend = build(settings, reasoner, segmenter)
    app.state.backend = backend
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(
        Gatekeeper,
        token=settings.token,
        max_body_bytes=settings.max_body_bytes,
        names=settings.names,
    )
    app.add_middleware(Timed, metrics=backend.metrics)
    return app
