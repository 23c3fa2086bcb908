"""What the server counts, in the form Prometheus reads; no label holds anything a user sent."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Metrics", "Timed"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The counters of one application, each with a registry of its own.

    Attributes
    ----------
    requests : Counter
        By route template, method and status.
    request_seconds : Histogram
        From the first byte to the end of the reply, by route template.
    engine_seconds : Histogram
        Time in the engines, by stage: encode, reason, segment, propagate.
    shortages : Counter
        Times an engine ran out of memory.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "medreasoner_requests",
            "Replies.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "medreasoner_request_seconds",
            "Seconds to the end of the reply.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.engine_seconds = Histogram(
            "medreasoner_engine_seconds",
            "Seconds in an engine.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.shortages = Counter(
            "medreasoner_memory_shortages", "Engines out of memory.", registry=self.registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Report a value as it is when it is asked for."""
        Gauge(f"medreasoner_{name}", text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class Timed:
    """ASGI middleware: counts and times every request by the route that took it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its reply."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, scope["method"], status).inc()
            self._metrics.request_seconds.labels(route).observe(perf_counter() - start)
