"""The same application on several GPUs, by Ray Serve: one replica with its own engines on each.

All requests of a client go to the same replica (Ray's consistent hashing over the client's
header), so that its images, its lease and its newest request are known there. The deadlines of
`deadlines` belong to our own HTTP server; Ray's proxy has its own.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from fastapi import FastAPI

from napari_medreasoner.core.errors import EngineError, MissingEngineError
from napari_medreasoner.core.protocol import CLIENT_HEADER
from napari_medreasoner.server.settings import Settings

__all__ = ["run_on_ray"]

_NAME: Final = "medreasoner"
_ONGOING: Final = 256
"""Requests that Ray hands to a replica at a time; the replica keeps its own queue."""


def _builder(settings: Settings) -> Callable[[], FastAPI]:
    def build() -> FastAPI:
        from napari_medreasoner.engines.registry import create_reasoner, create_segmenter
        from napari_medreasoner.server.app import create_app
        from napari_medreasoner.server.logs import log_to_stderr

        log_to_stderr(settings.token)
        return create_app(
            settings,
            create_reasoner(settings.crm, settings.options),
            create_segmenter(settings.asm, settings.options),
        )

    return build


def _end_of_signals() -> threading.Event:
    """Set by SIGTERM or Ctrl-C; made after Ray has put up handlers of its own."""
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    return end


def run_on_ray(
    settings: Settings, replicas: int, gpus: float, announce: Callable[[], None]
) -> None:
    """Serve on this machine's Ray until a signal comes.

    Parameters
    ----------
    settings : Settings
        As for one server; the device of a replica is the GPU that Ray gives it.
    replicas : int
        How many sets of engines.
    gpus : float
        GPUs of each; less than 1 shares one, 0 runs on the CPU.
    announce : callable
        Called when the replicas answer.

    Raises
    ------
    MissingEngineError
        When Ray Serve is not installed.
    EngineError
        When the replicas do not start.
    """
    # Read at Ray's import; other users of this machine must not command its workers.
    os.environ["RAY_SERVE_SESSION_ID_HEADER_KEY"] = CLIENT_HEADER.lower()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_urlsafe(32))
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise MissingEngineError(
            "Ray Serve is not installed; install it with: pip install 'napari-medreasoner[ray]'"
        ) from error
    ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=True)
    try:
        serve.start(http_options=_http(settings))
        serve.run(_deployment(settings, replicas, gpus), name=_NAME, route_prefix="/")
        end = _end_of_signals()
        announce()
        end.wait()
    except RuntimeError as error:
        raise EngineError(
            "The replicas did not start; Ray's lines above say why, and fewer replicas or GPUs "
            "may help."
        ) from error
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _http(settings: Settings) -> Any:
    from ray.serve.config import HTTPOptions

    return HTTPOptions(
        host=settings.host,
        port=settings.port,
        ssl_certfile=None if settings.certificate is None else str(settings.certificate),
        ssl_keyfile=None if settings.key is None else str(settings.key),
    )


def _deployment(settings: Settings, replicas: int, gpus: float) -> Any:
    from ray import serve
    from ray.serve.config import RequestRouterConfig
    from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

    # Ray shows each replica its own GPU alone.
    options = replace(settings.options, device="cuda" if gpus else settings.options.device)
    ingress = serve.ingress(_builder(replace(settings, options=options)))()
    router = RequestRouterConfig(
        request_router_class=ConsistentHashRouter,  # type: ignore[arg-type]  # Ray's own example
        request_router_kwargs={"num_fallback_replicas": 0},
    )
    deployment: Any = serve.deployment(
        ingress,
        name=_NAME,
        num_replicas=replicas,
        ray_actor_options={"num_gpus": gpus, "num_cpus": 0 if gpus else 1},
        max_ongoing_requests=_ONGOING,
        request_router_config=router,
    )
    return deployment.bind()
