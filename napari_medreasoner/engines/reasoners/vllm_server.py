"""A `vllm serve` of our own: started, watched and ended, on the loopback only.

vLLM pins its own versions of much that this project uses, so it lives in an environment of its
own and `MEDREASONER_VLLM` names its executable.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import Final

import httpx
import openai

from napari_medreasoner.core.errors import EngineError, MissingEngineError, SettingsError
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["ENVIRONMENT_VARIABLE", "VllmServer"]

ENVIRONMENT_VARIABLE: Final = "MEDREASONER_VLLM"
"""Environment variable that names the executable."""

_HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 900.0
_POLL_SECONDS: Final = 0.25
_STOP_SECONDS: Final = 10.0
_TAIL_BYTES: Final = 4096
_SILENCE: Final = openai.Timeout(120.0, connect=5.0)
_QUIET: Final = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""What keeps vLLM from speaking to anybody else; it reports its use unless told not to."""

_SUPERVISOR: Final = "napari_medreasoner.engines.reasoners.supervised"


class VllmServer:
    """One `vllm serve` process, ready to answer.

    It ends with this object and, since a supervisor watches the pipe from this process, also
    when this process is killed.

    Parameters
    ----------
    folder : Path
        The model.
    options : EngineOptions
        Precision and quantisation.

    Raises
    ------
    SettingsError
        When the options ask for what vLLM does not do.
    MissingEngineError
        When there is no vLLM.
    EngineError
        When it ended at once or was not ready in time.
    """

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        if options.quantisation == "8bit" or options.device == "cpu":
            raise SettingsError(
                "vLLM runs here on CUDA, with weights as they are or in 4 bits; leave out "
                f"{'8bit' if options.quantisation == '8bit' else 'the device cpu'}, or the "
                "endpoint vllm."
            )
        executable = os.environ.get(ENVIRONMENT_VARIABLE) or shutil.which("vllm")
        if executable is None or not Path(executable).is_file():
            raise MissingEngineError(
                "vLLM was not found; install it in an environment of its own and name its "
                f"executable in {ENVIRONMENT_VARIABLE}."
            )
        self._folder = folder
        self._key = secrets.token_urlsafe(32)
        self._port = _free_port()
        self._scratch = Path(tempfile.mkdtemp(prefix="medreasoner-vllm-"))  # mode 0700
        self._process = self._spawn(executable, options)
        self.close = weakref.finalize(self, _end, self._process, self._scratch)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Base address of its API."""
        return f"http://{_HOST}:{self._port}/v1"

    def client(self) -> openai.OpenAI:
        """Return a client of it; no proxy stands in between."""
        return openai.OpenAI(
            base_url=self.url,
            api_key=self._key,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(timeout=_SILENCE, trust_env=False),
        )

    def require_alive(self) -> None:
        """Refuse to go on when the process has ended.

        Raises
        ------
        EngineError
            With the last line of its log.
        """
        if self._process.poll() is not None:
            raise EngineError(
                f"vLLM has ended ({self._last_line()}); restart the backend, with a smaller model "
                "if the memory did not suffice."
            )

    def _spawn(self, executable: str, options: EngineOptions) -> subprocess.Popen[bytes]:
        command = [executable, "serve", str(self._folder), "--host", _HOST]
        command += ["--port", str(self._port), "--served-model-name", str(self._folder)]
        # A model's longest context seldom fits beside its weights; vLLM finds what does.
        command += ["--dtype", options.dtype, "--max-model-len", "auto"]
        if options.quantisation == "4bit":
            command += ["--quantization", "bitsandbytes"]
        # The key goes by the environment: a command line can be read by every user.
        environment = {**os.environ, **_QUIET, "VLLM_API_KEY": self._key}
        if index := options.device.partition("cuda:")[2]:
            environment["CUDA_VISIBLE_DEVICES"] = index
        with (self._scratch / "log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - the user's own vLLM
                [sys.executable, "-P", "-m", _SUPERVISOR, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + _START_SECONDS
        with httpx.Client(base_url=f"http://{_HOST}:{self._port}", trust_env=False) as http:
            while time.monotonic() < end:
                self.require_alive()
                try:
                    if http.get("/health").is_success:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                time.sleep(_POLL_SECONDS)
        raise EngineError(
            f"vLLM was not ready after {_START_SECONDS / 60:.0f} minutes; its last line is "
            f'"{self._last_line()}".'
        )

    def _last_line(self) -> str:
        text = (self._scratch / "log").read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes], scratch: Path) -> None:
    """Close the pipe, at which the supervisor ends the server, and remove the log."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
