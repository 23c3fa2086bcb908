"""Running the server as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Final, TextIO

import uvicorn
from fastapi import FastAPI

from napari_medreasoner.core.errors import EngineError, SettingsError
from napari_medreasoner.engines.registry import create_reasoner, create_segmenter
from napari_medreasoner.server.app import create_app
from napari_medreasoner.server.deadlines import DeadlineProtocol
from napari_medreasoner.server.logs import log_to_stderr
from napari_medreasoner.server.ray_serve import run_on_ray
from napari_medreasoner.server.settings import HOST, Settings

__all__ = ["run", "run_distributed"]

_GRACE_SECONDS: Final = 5
"""Time for running answers to end at shutdown."""

_STDIN, _STDOUT, _STDERR = range(3)

# Longer than a client keeps an idle connection, so that it never reuses a closing one.
_IDLE_SECONDS: Final = 75


def _announce(announce_to: TextIO, url: str) -> None:
    announce_to.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    announce_to.flush()


class _AnnouncingServer(uvicorn.Server):
    """Says where it listens once it is ready, and tells the application when it is to end."""

    def __init__(
        self, config: uvicorn.Config, url: str, announce_to: TextIO, ending: asyncio.Event
    ) -> None:
        super().__init__(config)
        self._url = url
        self._announce_to = announce_to
        self._ending = ending
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Warm up and listen, then announce."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        _announce(self._announce_to, self._url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: streams say so to their clients instead of breaking off."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)


@contextmanager
def _claimed_stdout() -> Iterator[TextIO]:
    """Keep stdout for the one line: what libraries print, even from C, goes to stderr."""
    with os.fdopen(os.dup(_STDOUT), "w") as claimed, redirect_stdout(sys.stderr):
        os.dup2(_STDERR, _STDOUT)
        yield claimed


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol unnamed asyncio leaves Nagle's algorithm on: 40 ms more per reply.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A restart must not wait for old connections of the same port to time out.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"Port {port} of {host} cannot be used ({error.strerror}); choose another or 0."
        ) from error
    return listener


def _die_with_parent() -> None:
    """End this process when stdin does: the kernel closes it even if the parent was killed."""
    # Not sys.stdin: its lock, held by this thread for ever, would abort a normal exit.
    while os.read(_STDIN, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)  # an engine that does not come back must not keep the process


def _config(app: FastAPI, settings: Settings, grace: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=DeadlineProtocol,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace,
        timeout_keep_alive=_IDLE_SECONDS,
    )


def run_distributed(settings: Settings, replicas: int, gpus: float) -> None:
    """Serve from several replicas until told to stop; see `ray_serve.run_on_ray`.

    Raises
    ------
    SettingsError
        When the port cannot be used.
    MissingEngineError, EngineError
        When Ray or an engine is missing, or the replicas do not start.
    """
    log_to_stderr(settings.token)
    with _bind(settings.host, settings.port) as free:  # Ray binds it by itself, and takes no 0
        port = free.getsockname()[1]
    with _claimed_stdout() as announce_to:
        announce = partial(_announce, announce_to, _url(settings, port))
        run_on_ray(replace(settings, port=port), replicas, gpus, announce)


def run(settings: Settings, *, until_eof: bool = False) -> None:
    """Serve until told to stop.

    One line of JSON, with the keys "url" and "pid", is written to stdout when the server is
    ready; everything else goes to stderr.

    Parameters
    ----------
    settings : Settings
        Port, engines, token and limits.
    until_eof : bool
        End when stdin ends, that is, with the parent process.

    Raises
    ------
    SettingsError
        When the port cannot be used.
    MissingEngineError
        When an engine is unknown or a package it needs is missing.
    EngineError
        When the segmenter cannot be warmed up.
    """
    log_to_stderr(settings.token)
    if until_eof:
        threading.Thread(target=_die_with_parent, daemon=True).start()
    with (
        _claimed_stdout() as announce_to,
        _bind(settings.host, settings.port) as listener,
    ):
        app = create_app(
            settings,
            create_reasoner(settings.crm, settings.options),
            create_segmenter(settings.asm, settings.options),
        )
        # With the parent, whoever reads the answers is gone.
        config = _config(app, settings, grace=0 if until_eof else _GRACE_SECONDS)
        url = _url(settings, listener.getsockname()[1])
        server = _AnnouncingServer(config, url, announce_to, app.state.backend.ending)
        try:
            server.run(sockets=[listener])
        except SystemExit as error:  # how uvicorn reports that the lifespan could not start
            raise EngineError(
                f'"{settings.crm}" or "{settings.asm}" failed at its warm-up; the lines above say '
                "why."
            ) from error


def _url(settings: Settings, port: int) -> str:
    scheme = "http" if settings.certificate is None else "https"
    return f"{scheme}://{settings.names[0] if settings.names else HOST}:{port}"
