"""The API reasoner over `transformers serve` as a process, and over services that misbehave."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from napari_medreasoner.core.errors import (
    BusyError,
    EngineError,
    MedReasonerError,
    MissingEngineError,
    SettingsError,
    UnreachableError,
)
from napari_medreasoner.core.grounding import parse_answer
from napari_medreasoner.engines.options import MANAGED, EngineOptions
from napari_medreasoner.engines.reasoners import openai_api, vllm_server
from napari_medreasoner.engines.registry import create_reasoner
from tests.checkpoints.teaching import Lesson, teach
from tests.checkpoints.vlm import qwen2_5_vl
from tests.engines.reasoners.conftest import ANSWERS, PICTURE, asked

KEY = "canary-key-0123456789"


FITTING = PICTURE[:84, :140]
"""A picture in whole patches, which nobody resizes."""


def text_of(reasoner: Any, question: str) -> str:
    return "".join(reasoner.stream(asked(question, FITTING)))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = qwen2_5_vl(tmp_path_factory.mktemp("models") / "lingshu-7b")
    return teach(folder, [Lesson(FITTING, "both", ANSWERS["both"])])


@pytest.fixture
def reach() -> Iterator[Any]:
    """Makes reasoners whose connections are closed at the end."""
    made: list[Any] = []

    def make(name: Any, **options: Any) -> Any:
        made.append(create_reasoner(str(name), EngineOptions(**options)))
        return made[-1]

    yield make
    for reasoner in made:
        reasoner._client.close()


# --- a real server of somebody else's --------------------------------------------------------


@pytest.fixture(scope="module")
def served(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve`, which loads a model by the path it is asked for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "transformers.cli.transformers", "serve", str(taught)),
            *("--device", "cpu", "--port", str(port)),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            assert process.poll() is None
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def test_a_model_served_by_others_answers_in_pixels_of_the_image(
    served: str, taught: Path, reach: Any
) -> None:
    reasoner = reach(taught, endpoint=served)
    pieces = list(reasoner.stream(asked("both", FITTING)))
    answer = parse_answer("".join(pieces))

    assert len(pieces) > 3
    assert answer.trace.startswith("Round and bright é漢😀.")
    assert answer.on_image(140, 84).box.corners == (14, 28, 42, 56)
    assert not reasoner.info.leaves_machine
    assert reasoner.info.device == "127.0.0.1"


def test_leaving_the_stream_closes_the_connection(served: str, taught: Path, reach: Any) -> None:
    reasoner = reach(taught, endpoint=served)
    with closing(reasoner.stream(asked("both", FITTING))) as pieces:
        next(pieces)
    assert text_of(reasoner, "both")


def test_a_model_the_server_does_not_have_is_one_sentence(served: str, tmp_path: Path) -> None:
    with pytest.raises(MedReasonerError, match=r"^The server at 127\.0\.0\.1 does not offer"):
        create_reasoner("qwen2.5-vl-7b", EngineOptions(endpoint=served, models=tmp_path))


# --- a server of our own ---------------------------------------------------------------------

STAND_IN = """#!{python}
import os, sys
assert os.environ["VLLM_API_KEY"] not in " ".join(sys.argv)
arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1] == "serve" and arguments["--host"] == "127.0.0.1"
os.environ["HF_HOME"] = {home!r}
os.execv(sys.executable, [sys.executable, "-m", "transformers.cli.transformers", "serve",
         sys.argv[2], "--device", "cpu", "--port", arguments["--port"]])
"""


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable that takes the options of `vllm serve` and serves with transformers."""
    (tmp_path / "hub").mkdir()
    executable = tmp_path / "vllm"
    executable.write_text(STAND_IN.format(python=sys.executable, home=str(tmp_path)))
    executable.chmod(0o755)
    monkeypatch.setenv(vllm_server.ENVIRONMENT_VARIABLE, str(executable))
    return executable


def test_a_server_of_our_own_is_started_watched_and_ended(
    vllm: Path, taught: Path, reach: Any
) -> None:
    reasoner = reach("lingshu-7b", endpoint=MANAGED, models=taught.parent)
    server = reasoner._server
    assert parse_answer(text_of(reasoner, "both")).on_image(140, 84).box.area
    server._process.stdin.close()  # as the kernel does when this process is killed
    server._process.wait(20)
    with pytest.raises(EngineError, match="vLLM has ended"):
        text_of(reasoner, "both")
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)
    server.close()
    assert not server._scratch.exists()


def test_a_server_that_ends_at_once_is_told_with_its_last_line(vllm: Path, taught: Path) -> None:
    vllm.write_text("#!/bin/sh\necho no memory left >&2\nexit 3\n")
    with pytest.raises(EngineError, match="no memory left"):
        create_reasoner(str(taught), EngineOptions(endpoint=MANAGED))


def test_without_vllm_its_place_is_asked_for(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vllm_server.ENVIRONMENT_VARIABLE, "/nowhere/vllm")
    with pytest.raises(MissingEngineError, match="MEDREASONER_VLLM"):
        create_reasoner(str(taught), EngineOptions(endpoint=MANAGED))


# --- services that misbehave -----------------------------------------------------------------


class Service(ThreadingHTTPServer):
    """Offers the model "m" and answers each question by `act`."""

    def __init__(self, act: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.act = act
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}))

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.act(self)

    def reply(self, status: int, body: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


def chunk(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps({**body, 'choices': [choice]})}\n\n"


def streaming(*pieces: str) -> Any:
    return lambda handler: handler.reply(200, "".join(pieces), "text/event-stream")


@pytest.fixture
def reasoner_of(taught: Path, reach: Any) -> Iterator[Any]:
    services: list[Service] = []

    def make(act: Any) -> Any:
        services.append(Service(act))
        threading.Thread(target=services[-1].serve_forever, daemon=True).start()
        return reach(taught, endpoint=services[-1].url)

    yield make
    for service in services:
        service.shutdown()
        service.server_close()


WHOLE = (
    chunk("<think>Bright.</think><answer>"),
    chunk('{"bbox": [28, 28, 56, 56], "points_1": [30, 30], "points_2": [50, 50]}</answer>'),
    chunk("", "stop"),
    "data: [DONE]\n\n",
)


def test_the_picture_is_sent_in_whole_patches_and_the_answer_comes_back_in_pixels(
    reasoner_of: Any,
) -> None:
    reasoner = reasoner_of(streaming(*WHOLE))
    text = "".join(reasoner.stream(asked("where?")))
    height, width = PICTURE.shape[:2]
    assert (width, height) == (150, 90)
    assert reasoner.frame(width, height) == (140, 84)
    box = parse_answer(text).on_image(width, height).box
    assert box.corners == (30, 30, 60, 60)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda handler: handler.reply(401, "{}"), SettingsError, "refused the key"),
        (lambda handler: handler.reply(404, "{}"), MissingEngineError, "does not know the model"),
        (lambda handler: handler.reply(429, "{}"), BusyError, "no more questions"),
        (lambda handler: handler.reply(500, "canary"), EngineError, "HTTP 500"),
        (streaming(*WHOLE[:1]), UnreachableError, "broke off"),
        (streaming("data: canary\n\n"), EngineError, "no answer"),
        (lambda handler: handler.connection.close(), UnreachableError, "cannot be reached"),
    ],
    ids=["key", "model", "busy", "failure", "cut", "garbage", "gone"],
)
def test_what_services_do_wrong_is_one_sentence(
    reasoner_of: Any, act: Any, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_api, "_RETRIES", 0)
    with pytest.raises(error, match=words) as caught:
        text_of(reasoner_of(act), "where?")
    assert "canary" not in str(caught.value)


def test_a_silent_service_is_given_up(reasoner_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_api, "_RETRIES", 0)
    monkeypatch.setattr(openai_api, "_TIMEOUT", openai_api.openai.Timeout(0.3))
    with pytest.raises(UnreachableError, match="is silent"):
        text_of(reasoner_of(lambda handler: time.sleep(2)), "where?")


@pytest.mark.parametrize(
    ("name", "variable"),
    [("gpt-4o", "OPENAI_API_KEY"), ("gemini-2.5-flash", "GEMINI_API_KEY")],
)
def test_services_elsewhere_need_a_key_and_say_that_pictures_leave(
    name: str, variable: str, reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SettingsError, match=f"set {variable}"):
        create_reasoner(name)
    monkeypatch.setenv(variable, KEY)
    reasoner = reach(name)
    assert reasoner.info.leaves_machine
    assert KEY not in repr(reasoner.info)
