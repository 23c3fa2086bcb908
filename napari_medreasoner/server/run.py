"""Running the server as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final, TextIO

import uvicorn
from fastapi import FastAPI

from napari_medreasoner.core.errors import EngineError, SettingsError
from napari_medreasoner.engines.registry import create_reasoner, create_segmenter
from napari_medreasoner.server.app import create_app
from napari_medreasoner.server.logs import log_to_stderr
from napari_medreasoner.server.settings import HOST, Settings

__all__ = ["run"]

_GRACE_SECONDS: Final = 5
"""Time for running answers to end at shutdown."""

_STDIN, _STDOUT, _STDERR = range(3)

# Longer than a client keeps an idle connection, so that it never reuses a closing one.
_IDLE_SECONDS: Final = 75


class _AnnouncingServer(uvicorn.Server):
    """Says where it listens once it is ready."""

    def __init__(self, config: uvicorn.Config, port: int, announce_to: TextIO) -> None:
        super().__init__(config)
        self._port = port
        self._announce_to = announce_to

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Warm up and listen, then announce."""
        await super().startup(sockets)
        place = {"url": f"http://{HOST}:{self._port}", "pid": os.getpid()}
        self._announce_to.write(json.dumps(place) + "\n")
        self._announce_to.flush()


@contextmanager
def _claimed_stdout() -> Iterator[TextIO]:
    """Keep stdout for the one line: what libraries print, even from C, goes to stderr."""
    with os.fdopen(os.dup(_STDOUT), "w") as claimed, redirect_stdout(sys.stderr):
        os.dup2(_STDERR, _STDOUT)
        yield claimed


def _bind(port: int) -> socket.socket:
    # With the protocol unnamed asyncio leaves Nagle's algorithm on: 40 ms more per reply.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A restart must not wait for old connections of the same port to time out.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"Port {port} of {HOST} cannot be used ({error.strerror}); choose another or 0."
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


def _config(app: FastAPI, grace: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace,
        timeout_keep_alive=_IDLE_SECONDS,
    )


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
    with _claimed_stdout() as announce_to, _bind(settings.port) as listener:
        app = create_app(settings, create_reasoner(settings.crm), create_segmenter(settings.asm))
        # With the parent, whoever reads the answers is gone.
        config = _config(app, grace=0 if until_eof else _GRACE_SECONDS)
        port = listener.getsockname()[1]
        try:
            _AnnouncingServer(config, port, announce_to).run(sockets=[listener])
        except SystemExit as error:  # how uvicorn reports that the lifespan could not start
            raise EngineError(
                f'The segmenter "{settings.asm}" failed at its warm-up; the lines above say why.'
            ) from error
