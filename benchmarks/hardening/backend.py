"""A real `medreasoner serve` process with the numbered engines, and clients of it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any, Self, cast

import engines
import httpx
import psutil

from napari_medreasoner.client.client import Client
from napari_medreasoner.client.picture import Picture, UploadImage


class Backend(AbstractContextManager["Backend"]):
    """One server process after the other, in folders of their own.

    Parameters
    ----------
    crm, asm : str
        Engines; the numbered ones unless told otherwise.
    """

    def __init__(self, crm: str = "numbered", asm: str = "numbered") -> None:
        self._engines = ["--crm", crm, "--asm", asm]
        self._stack = TemporaryDirectory(prefix="hardening-")
        self.folder = Path(self._stack.name)
        self.token = secrets.token_urlsafe(32)
        self.endings = self.folder / "endings"
        self.log = self.folder / "log"
        self.home = self.folder / "home"
        self.home.mkdir()
        self._site = engines.install(self.folder / "site")
        (self.folder / "token").write_text(self.token)
        (self.folder / "token").chmod(0o600)
        self.url = ""
        self._log_file: IO[bytes] = self.log.open("ab")
        self.process = self._start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        self._log_file.close()
        self._stack.cleanup()

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            **self._site,
            engines.ENDINGS: str(self.endings),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
        }
        process = subprocess.Popen(  # noqa: S603 - our own command
            [
                *(sys.executable, "-P", "-m", "napari_medreasoner.cli", "serve", "--port", "0"),
                *("--token-file", str(self.folder / "token"), *self._engines),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            text=True,
        )
        self.url = json.loads(cast("IO[str]", process.stdout).readline())["url"]
        return process

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> Self:
        """Start another process in place of one that was killed."""
        self.process = self._start()
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def inner(self) -> psutil.Process:
        """The process, as the system sees it."""
        return psutil.Process(self.process.pid)

    @property
    def connections(self) -> int:
        """Connections that are open on the server's side."""
        return sum(1 for one in self.inner.net_connections("tcp") if one.status != "LISTEN")

    def client(self) -> Client:
        """Return the project's own client."""
        return Client(self.url, self.token)

    def http(self, **more: Any) -> httpx.Client:
        """Return a plain HTTP client that bears the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, timeout=30.0, **more
        )


def numbered_picture(number: int) -> Picture:
    """Picture of a number, its grey levels displayed as they are."""
    return Picture(UploadImage(engines.picture_of(number)), window=(0.0, 255.0))
