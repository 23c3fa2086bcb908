"""A server of our own in the place of `vllm serve`: transformers' real one, and idle ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from napari_medreasoner.core.errors import (
    EngineError,
    MedReasonerError,
    MissingEngineError,
    SettingsError,
)
from napari_medreasoner.core.grounding import parse_answer
from napari_medreasoner.engines.options import MANAGED, EngineOptions
from napari_medreasoner.engines.reasoners import vllm_server
from napari_medreasoner.engines.registry import create_reasoner
from tests.engines.reasoners.conftest import FITTING, asked


def text_of(reasoner: Any, question: str) -> str:
    return "".join(reasoner.stream(asked(question, FITTING)))


STAND_IN = """#!{python}
import os, sys
assert os.environ["VLLM_API_KEY"] not in " ".join(sys.argv)
arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1] == "serve" and arguments["--host"] == "127.0.0.1"
os.environ["HF_HOME"] = {home!r}
os.execv(sys.executable, [sys.executable, "-m", "transformers.cli.transformers", "serve",
         sys.argv[2], "--device", "cpu", "--port", arguments["--port"]])
"""

IDLE = """#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
kept = {{name: os.environ.get(name) for name in {names!r}}}
open({notes!r}, "w").write(json.dumps({{"pid": os.getpid(), **kept}}))
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""

PARENT = """
import sys, time
from pathlib import Path
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.reasoners.vllm_server import VllmServer
server = VllmServer(Path(sys.argv[1]), EngineOptions())
print(server._process.pid, flush=True)
time.sleep(600)
"""


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def own(taught_fitting: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A reasoner over `transformers serve`, put in the place of `vllm serve`."""
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()
    text = STAND_IN.format(python=sys.executable, home=str(home))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(vllm_server.ENVIRONMENT_VARIABLE, str(executable(home / "vllm", text)))
        patch.setenv("OMP_NUM_THREADS", "1")
        reasoner: Any = create_reasoner(
            "lingshu-7b", EngineOptions(endpoint=MANAGED, models=taught_fitting.parent)
        )
    yield reasoner
    reasoner._client.close()
    reasoner._server.close()


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable that is ready at once and writes down its id and environment."""
    notes = tmp_path / "notes.json"
    names = ("VLLM_NO_USAGE_STATS", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES")
    text = IDLE.format(python=sys.executable, notes=str(notes), names=names)
    monkeypatch.setenv(vllm_server.ENVIRONMENT_VARIABLE, str(executable(tmp_path / "vllm", text)))
    return notes


def wait_for_end(pid: int) -> None:
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} lives on")


def test_a_server_of_our_own_answers_in_pixels_of_the_image(own: Any) -> None:
    pieces = list(own.stream(asked("both", FITTING)))
    answer = parse_answer("".join(pieces))

    assert len(pieces) > 3
    assert answer.trace.startswith("Round and bright é漢😀.")
    assert answer.on_image(140, 84).box.corners == (14, 28, 42, 56)
    assert not own.info.leaves_machine
    assert own.info.device == "127.0.0.1"


def test_a_model_served_by_others_is_found_by_its_folder(
    own: Any, taught_fitting: Path, reach: Any
) -> None:
    reasoner = reach(taught_fitting, endpoint=own._server.url)
    with closing(reasoner.stream(asked("both", FITTING))) as pieces:
        next(pieces)
    assert parse_answer(text_of(reasoner, "both")).on_image(140, 84).box.area


def test_a_model_the_server_does_not_have_is_one_sentence(
    own: Any, tmp_path: Path, reach: Any
) -> None:
    with pytest.raises(MedReasonerError, match=r"^The server at 127\.0\.0\.1 does not offer"):
        create_reasoner("qwen2.5-vl-7b", EngineOptions(endpoint=own._server.url, models=tmp_path))
    with pytest.raises(EngineError, match=r"^The service at 127\.0\.0\.1"):
        text_of(reach("gpt-4o", endpoint=own._server.url), "both")


def test_our_server_is_watched_and_leaves_nothing(
    idle: Path, taught_fitting: Path, reach: Any
) -> None:
    reasoner = reach(taught_fitting, endpoint=MANAGED, device="cuda:1")
    server = reasoner._server
    notes = json.loads(idle.read_text())
    assert notes["VLLM_NO_USAGE_STATS"] == notes["HF_HUB_OFFLINE"] == "1"
    assert notes["CUDA_VISIBLE_DEVICES"] == "1"
    os.kill(notes["pid"], signal.SIGKILL)
    server._process.wait(20)
    with pytest.raises(EngineError, match="vLLM has ended"):
        text_of(reasoner, "both")
    server.close()
    assert not server._scratch.exists()


def test_our_server_ends_when_this_process_is_killed(idle: Path, taught_fitting: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(taught_fitting)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        supervisor = int(parent.stdout.readline())
    server = json.loads(idle.read_text())["pid"]
    os.kill(server, 0)
    parent.kill()
    parent.wait()
    wait_for_end(server)
    wait_for_end(supervisor)


def test_a_server_that_ends_at_once_is_told_with_its_last_line(
    idle: Path, taught_fitting: Path
) -> None:
    executable(idle.with_name("vllm"), "#!/bin/sh\necho no memory left >&2\nexit 3\n")
    with pytest.raises(EngineError, match="no memory left"):
        create_reasoner(str(taught_fitting), EngineOptions(endpoint=MANAGED))


def test_a_server_that_is_never_ready_is_ended(
    idle: Path, taught_fitting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = idle.with_name("pid")
    executable(idle.with_name("vllm"), f"#!/bin/sh\necho $$ > {pid}\nexec sleep 600\n")
    monkeypatch.setattr(vllm_server, "_START_SECONDS", 4.0)
    with pytest.raises(EngineError, match="was not ready"):
        create_reasoner(str(taught_fitting), EngineOptions(endpoint=MANAGED))
    wait_for_end(int(pid.read_text()))


def test_without_vllm_its_place_is_asked_for(
    taught_fitting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(vllm_server.ENVIRONMENT_VARIABLE, "/nowhere/vllm")
    with pytest.raises(MissingEngineError, match="MEDREASONER_VLLM"):
        create_reasoner(str(taught_fitting), EngineOptions(endpoint=MANAGED))


@pytest.mark.parametrize("wish", [{"quantisation": "8bit"}, {"device": "cpu"}])
def test_what_vllm_does_not_do_is_refused_not_left_out(taught_fitting: Path, wish: Any) -> None:
    with pytest.raises(SettingsError, match=next(iter(wish.values()))):
        create_reasoner(str(taught_fitting), EngineOptions(endpoint=MANAGED, **wish))
