"""Starting a backend of one's own and ending it, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from napari_medreasoner.client.client import Client
from napari_medreasoner.core.defaults import ASM, CRM
from napari_medreasoner.core.errors import UnreachableError

__all__ = ["LocalServer"]

_START_SECONDS: Final = 300.0
"""A model of some billion parameters takes minutes from a slow disk."""
_STOP_SECONDS: Final = 5.0
_TAIL_BYTES: Final = 4096


class LocalServer:
    """A backend process on this machine; can be started again after it died.

    The process ends with this one even if this one is killed, since it watches the pipe to
    its stdin. All methods must be awaited in one event loop, on any thread.

    Parameters
    ----------
    crm, asm : str
        Registry names, or folders, of the reasoner and the segmenter.
    options : sequence of str
        Further options of `medreasoner serve`, such as "--device", "cuda:1".
    """

    def __init__(self, crm: str = CRM, asm: str = ASM, options: Sequence[str] = ()) -> None:
        self._crm = crm
        self._asm = asm
        self._options = options
        self._process: Process | None = None
        self._folder: Path | None = None
        self._token = ""
        self._url = ""

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Process id; None before the first start and after a stop."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the process and wait until it is ready; a running one is stopped first.

        Raises
        ------
        UnreachableError
            When it ended at once or was not ready in time; says its last log line.
        """
        await self.stop()
        self._folder = Path(tempfile.mkdtemp(prefix="medreasoner-"))  # mode 0700
        self._token = secrets.token_urlsafe(32)
        token_file = self._folder / "token"
        _write_private(token_file, self._token)
        try:
            self._process = await self._spawn(token_file)
            self._url = await self._ready_url(self._process)
        except BaseException:
            await self.stop()
            raise
        token_file.unlink()  # read by now; nothing is left behind if this process is killed

    def client(self) -> Client:
        """Return a client of the running server.

        Raises
        ------
        UnreachableError
            When it was not started.
        """
        if not self.running:
            raise UnreachableError("The backend is not running; start it.")
        return Client(self._url, self._token)

    async def watch(self) -> int | None:
        """Wait until the process ends; return its exit code, None if there is no process."""
        return None if self._process is None else await self._process.wait()

    def last_log_line(self) -> str:
        """Last line the server wrote to its log; empty when there is none."""
        if self._folder is None:
            return ""
        with (self._folder / "log").open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            lines = log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    async def stop(self) -> None:
        """End the process, if any, and remove its files."""
        if self._process is not None:
            await _end(self._process)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = None

    async def _spawn(self, token_file: Path) -> Process:
        # -P: a file named like a module in the current folder must not be run.
        command = [sys.executable, "-P", "-m", "napari_medreasoner.cli", "serve", "--port", "0"]
        command += ["--token-file", str(token_file), "--crm", self._crm, "--asm", self._asm]
        command += self._options
        with token_file.with_name("log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                "--until-eof",
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for this process alone
            )

    async def _ready_url(self, process: Process) -> str:
        stdout = cast("asyncio.StreamReader", process.stdout)  # a pipe was asked for
        try:
            line = await asyncio.wait_for(stdout.readline(), _START_SECONDS)
        except TimeoutError:
            raise UnreachableError(
                f"The backend was not ready after {_START_SECONDS:.0f} seconds; its last log "
                f'line is "{self.last_log_line()}".'
            ) from None
        if not line:
            await process.wait()
            reason = self.last_log_line().removeprefix("medreasoner: ")
            raise UnreachableError(f"The backend did not start: {reason}")
        return str(json.loads(line)["url"])


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        # Closes stdin and reads stdout to its end, so that no pipe outlives the loop.
        await asyncio.wait_for(process.communicate(b""), _STOP_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate(b"")
