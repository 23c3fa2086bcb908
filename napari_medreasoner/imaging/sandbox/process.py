"""A process for one file: started, asked once, and ended whatever it does."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from io import RawIOBase
from subprocess import Popen
from typing import Any, Final

__all__ = ["Child", "Incoming"]

COMMAND: Final = (sys.executable, "-P", "-m", "napari_medreasoner.imaging.sandbox.child")
"""What is started; -P, so that a file named like a module in the current folder is not run."""

_TAIL_BYTES: Final = 2**12

_KEPT: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP",
    "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
)  # fmt: skip
_SINGLE: Final = ("OPENBLAS", "OMP", "MKL")


def environment() -> dict[str, str]:
    """What the child needs to find Python and its libraries; no tokens, one thread."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    single = {f"{library}_NUM_THREADS": "1" for library in _SINGLE}
    return kept | single | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}


def _nameless_file() -> int:
    """Descriptor of an empty file."""
    if sys.platform == "linux":
        return os.memfd_create("medreasoner", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Child:
    """A process that waits for one request; it ends when the socket to it closes.

    Its voxels come in an empty file without a name, in memory on Linux, that it inherits: one
    step for all, where a pipe would take a change of process for every few of them.

    Parameters
    ----------
    *words : str
        Added to the command line.

    Raises
    ------
    OSError
        When no process can be started.
    """

    def __init__(self, *words: str) -> None:
        self.answers, theirs = socket.socketpair()
        self._complaints, moan = socket.socketpair()
        self.voxels = _nameless_file()
        with theirs, moan:
            try:
                self._process = Popen(  # noqa: S603 - our own interpreter; no file name is on it
                    (*COMMAND, *words),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=moan.fileno(),
                    env=environment(),
                    pass_fds=(self.voxels,),
                    start_new_session=True,  # Ctrl-C in a terminal is for this process alone
                )
            except OSError:
                self._hang_up()
                raise
        self.pid = self._process.pid

    def over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, request: dict[str, Any]) -> None:
        """Hand over the one request; a child that is dead does not take it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.answers.sendall(json.dumps(request | {"voxels": self.voxels}).encode())
            self.answers.shutdown(socket.SHUT_WR)

    def wait(self, deadline: float) -> int:
        """Exit code; `subprocess.TimeoutExpired` when it comes too late."""
        return self._process.wait(max(deadline - time.monotonic(), 0))

    def tail(self) -> bytes:
        """Last bytes of stderr, up to `hush`; the rest is thrown away as it comes."""
        tail = b""
        while chunk := self._complaints.recv(2**16):
            tail = (tail + chunk)[-_TAIL_BYTES:]
        return tail

    def hush(self) -> None:
        """Let `tail` return even if something still holds the other end."""
        self._complaints.shutdown(socket.SHUT_RD)

    def end(self) -> None:
        """Kill it and what it started, unless it is over, and wait for it."""
        # Not yet waited for, so that its id is still its own.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it and give everything back."""
        self.end()
        self._hang_up()

    def _hang_up(self) -> None:
        os.close(self.voxels)
        self.answers.close()
        self._complaints.close()


class Incoming(RawIOBase):
    """What a child answers until a point in time, as a stream.

    Parameters
    ----------
    child : Child
        Which answers.
    deadline : float
        On the clock of `time.monotonic`.
    """

    def __init__(self, child: Child, deadline: float) -> None:
        self._source, self._deadline = child.answers, deadline

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for some bytes; 0 at the end, TimeoutError when it is too late."""
        self._source.settimeout(max(self._deadline - time.monotonic(), 1e-3))
        with suppress(ConnectionResetError):  # it ended without reading its request
            return self._source.recv_into(buffer)
        return 0
