"""The API reasoner over services that misbehave, and what it sends where."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from napari_medreasoner.core.errors import (
    BusyError,
    EngineError,
    MissingEngineError,
    SettingsError,
    UnreachableError,
)
from napari_medreasoner.core.grounding import parse_answer
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.reasoners import openai_api
from napari_medreasoner.engines.registry import create_reasoner
from tests.engines.reasoners.conftest import FITTING, PICTURE, asked

KEY = "canary-key-0123456789"


def text_of(reasoner: Any, question: str) -> str:
    return "".join(reasoner.stream(asked(question, FITTING)))


class Service(ThreadingHTTPServer):
    """Offers the model "m" and answers each question by `act`."""

    def __init__(self, act: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.act = act
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}))

    def do_POST(self) -> None:
        self.server.headers.append(self.headers)
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
def serve() -> Iterator[Any]:
    services: list[Service] = []

    def make(act: Any) -> Service:
        services.append(Service(act))
        threading.Thread(target=services[-1].serve_forever, args=(0.02,), daemon=True).start()
        return services[-1]

    yield make
    for service in services:
        service.shutdown()
        service.server_close()


@pytest.fixture
def reasoner_of(taught_fitting: Path, reach: Any, serve: Any) -> Any:
    return lambda act: reach(taught_fitting, endpoint=serve(act).url)


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
        (streaming(chunk("", "content_filter")), EngineError, "content filter"),
        (lambda handler: handler.connection.close(), UnreachableError, "cannot be reached"),
    ],
    ids=["key", "model", "busy", "failure", "cut", "garbage", "filter", "gone"],
)
def test_what_services_do_wrong_is_one_sentence(
    reasoner_of: Any, act: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        text_of(reasoner_of(act), "where?")
    assert "canary" not in str(caught.value)


def test_a_silent_service_is_given_up(reasoner_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_api, "_TIMEOUT", openai_api.openai.Timeout(0.3))
    with pytest.raises(UnreachableError, match="is silent"):
        text_of(reasoner_of(lambda handler: time.sleep(2)), "where?")


def test_silence_in_the_middle_of_an_answer_is_no_end(
    reasoner_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_api, "_TIMEOUT", openai_api.openai.Timeout(0.5))

    def act(handler: Any) -> None:
        handler.reply(200, WHOLE[0], "text/event-stream")
        time.sleep(2)

    pieces = reasoner_of(act).stream(asked("where?"))
    assert next(pieces) == "<think>Bright.</think>"
    with pytest.raises(UnreachableError, match="is silent"):
        list(pieces)


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


def test_a_stream_that_is_left_closes_the_connection(reasoner_of: Any) -> None:
    noticed = threading.Event()

    def act(handler: Any) -> None:
        try:
            handler.reply(200, chunk("<think>"), "text/event-stream")
            while True:
                handler.wfile.write(chunk("more ").encode())
                time.sleep(0.01)
        except OSError:
            noticed.set()

    with closing(reasoner_of(act).stream(asked("where?"))) as pieces:
        next(pieces)
        assert not noticed.is_set()
    assert noticed.wait(10)


def test_the_key_and_account_of_a_service_are_for_that_service_alone(
    serve: Any, reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", KEY)
    monkeypatch.setenv("OPENAI_PROJECT_ID", KEY)
    service = serve(streaming(*WHOLE))
    text_of(reach("gpt-4o", endpoint=service.url), "where?")
    assert KEY not in str(service.headers[0])

    monkeypatch.setenv("MEDREASONER_ENDPOINT_KEY", "of this server")
    text_of(reach("gpt-4o", endpoint=service.url), "where?")
    assert service.headers[1]["Authorization"] == "Bearer of this server"


def test_a_redirect_takes_no_picture_along(serve: Any, reach: Any) -> None:
    other = serve(streaming(*WHOLE))

    def act(handler: Any) -> None:
        handler.send_response(307)
        handler.send_header("Location", f"{other.url}/chat/completions")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(EngineError, match="HTTP 307"):
        text_of(reach("gpt-4o", endpoint=serve(act).url), "where?")
    assert other.bodies == []


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://gpu.example:8000/v1", "for all to read"),
        ("http://127.0.0.1@gpu.example/v1", "for all to read"),
        ("http://127.0.0.1.gpu.example/v1", "for all to read"),
        ("localhost:8000/v1", "give --endpoint"),
        ("ftp://127.0.0.1/v1", "give --endpoint"),
        ("http://127.0.0.1:port/v1", "give --endpoint"),
    ],
)
def test_endpoints_that_no_picture_may_be_sent_to(endpoint: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        create_reasoner("gpt-4o", EngineOptions(endpoint=endpoint))


@pytest.mark.parametrize(
    ("host", "leaves"),
    [
        ("127.0.0.1", False),
        ("127.8.0.1", False),
        ("localhost", False),
        ("[::1]", False),
        ("gpu.example", True),
        ("localhost.example", True),
        ("10.0.0.1", True),
        ("192.168.1.2", True),
    ],
)
def test_only_the_loopback_is_this_machine(
    host: str, leaves: bool, reach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDREASONER_ENDPOINT_KEY", KEY)
    reasoner = reach("gpt-4o", endpoint=f"https://{host}/v1")
    assert reasoner.info.leaves_machine is leaves


def test_no_log_holds_key_question_or_picture(
    serve: Any, reach: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDREASONER_ENDPOINT_KEY", KEY)
    service = serve(streaming(*WHOLE))
    with caplog.at_level(logging.DEBUG):
        text_of(reach("gpt-4o", endpoint=service.url), "canary-question")
    (sent,) = service.bodies
    picture = sent["messages"][-1]["content"][0]["image_url"]["url"]
    assert "canary-question" in str(sent)
    assert KEY in str(service.headers[0])
    assert caplog.records
    assert not any(word in caplog.text for word in (KEY, "canary-question", picture[30:60]))
