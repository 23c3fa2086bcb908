"""Runs a command that ends when this process's stdin does, however its parent came to its end.

`python -m napari_medreasoner.engines.reasoners.supervised COMMAND…`; the exit code is the
command's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Final

__all__ = ["main"]

_GRACE_SECONDS: Final = 5.0


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the command and all it started to end, then make them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


def main(command: list[str]) -> int:
    """Run a command until it ends or stdin does."""
    process = subprocess.Popen(  # noqa: S603 - what the parent asks for
        command, stdin=subprocess.DEVNULL, start_new_session=True
    )

    def watch() -> None:
        while os.read(0, 4096):
            pass
        _end_group(process)

    threading.Thread(target=watch, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
