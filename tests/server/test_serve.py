"""`medreasoner serve` as a process."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest

from napari_medreasoner.cli.serve import serve
from napari_medreasoner.client.client import Client
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.errors import MissingEngineError, SettingsError, ShuttingDownError
from napari_medreasoner.core.protocol import HEALTH, SEGMENT, ThinkEvent
from napari_medreasoner.server.settings import ENVIRONMENT_VARIABLE
from tests.fakes import install
from tests.server.conftest import AUTH, TOKEN

ENGINES = ["--crm", "noisy", "--asm", "fake"]


@pytest.fixture
def command(tmp_path):
    def build(*options, **environment):
        return {
            "args": [sys.executable, "-m", "napari_medreasoner.cli", "serve", *options],
            "env": {**os.environ, **install(tmp_path / "site"), **environment},
            "stdin": subprocess.DEVNULL,
            "text": True,
        }

    return build


def failing(command) -> str:
    ran = subprocess.run(**command, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert ran.stdout == ""
    last = ran.stderr.rstrip().split("\n")[-1]
    assert last.startswith("medreasoner: ")
    return last


def test_one_line_on_stdout_then_requests_until_a_signal(command):
    process = subprocess.Popen(
        **command(*ENGINES, **{ENVIRONMENT_VARIABLE: TOKEN}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        place = json.loads(process.stdout.readline())
        with httpx.Client(base_url=place["url"], headers=AUTH, trust_env=False) as http:
            reply = http.get(HEALTH)
            assert reply.status_code == 200
            assert "server" not in reply.headers
            body = (b" " * 2**20 for _ in range(5))
            large = http.post(SEGMENT, content=body, headers={"Content-Type": "application/json"})
            assert large.status_code == 413
        process.send_signal(signal.SIGTERM)
        rest, log = process.communicate(timeout=10)

    assert place["pid"] == process.pid
    assert rest == ""
    assert "loading weights" in log
    assert "loading plugins" in log
    assert TOKEN not in log
    assert HEALTH not in log


async def _ask_until_the_end(url, pid):
    picture = Picture(UploadImage(np.zeros((20, 30), np.uint8)))
    async with Client(url, TOKEN) as client:
        async for event in client.ask(picture, "slow 2000"):
            if isinstance(event, ThinkEvent):
                os.kill(pid, signal.SIGTERM)


def test_at_the_end_whoever_waits_is_told(command):
    process = subprocess.Popen(
        **command(*ENGINES, **{ENVIRONMENT_VARIABLE: TOKEN}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        place = json.loads(process.stdout.readline())
        with pytest.raises(ShuttingDownError):
            asyncio.run(_ask_until_the_end(place["url"], process.pid))
        assert process.wait(10) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::"])  # noqa: S104 - refused
def test_other_machines_are_let_in_only_over_tls_and_by_name(command, host):
    last = failing(command("--host", host, *ENGINES, **{ENVIRONMENT_VARIABLE: TOKEN}))
    assert "ssh -L" in last
    assert "--certificate" in last


def test_a_port_in_use_is_one_sentence(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        last = failing(command("--port", str(port), *ENGINES, **{ENVIRONMENT_VARIABLE: TOKEN}))
    assert f"Port {port}" in last


def test_the_token_file_is_checked_before_anything_is_started(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        serve(token_file=path)


def test_without_the_backend_extra_the_command_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari_medreasoner.server.run", None)
    with pytest.raises(MissingEngineError, match=r"pip install 'napari-medreasoner\[backend\]'"):
        serve()
