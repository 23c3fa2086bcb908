"""Real server processes over fake engines: their start, their end, and what happens between."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path

import numpy as np
import pytest

from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.errors import EngineError, SupersededError, UnreachableError
from napari_medreasoner.core.geometry import Point, Prompts
from napari_medreasoner.core.protocol import DoneEvent, StatusEvent, ThinkEvent
from tests.fakes import BOX

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("fake_engines")]

PROMPTS = Prompts(box=BOX)


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return not alive(pid)


@pytest.fixture(scope="module")
async def shared(fake_engines):
    async with LocalServer(crm="noisy", asm="fake") as server:
        yield server


@pytest.fixture(scope="module")
async def default_server(fake_engines):
    async with LocalServer() as server:
        yield server


async def events_of(client, picture, question):
    return [event async for event in client.ask(picture, question)]


async def test_a_local_server_answers(shared, picture):
    async with shared.client() as client:
        assert (await client.capabilities()).crm.name == "fake-crm"
        events = await events_of(client, picture, "where?")
        result = await client.segment(picture, PROMPTS)

    assert shared.running
    assert isinstance(events[-1], DoneEvent)
    assert int(result.mask.sum()) == BOX.area


async def test_the_token_is_nowhere_to_be_seen(shared, picture):
    token, folder = shared._token, shared._folder
    async with shared.client() as client:
        with pytest.raises(EngineError):
            await events_of(client, picture, "crash")
    command_lines = b""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command_lines += entry.read_bytes()

    assert b"--token-file" in command_lines
    assert token.encode() not in command_lines
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["log"]
    log = (folder / "log").read_text()
    assert '"type": "RuntimeError"' in log
    assert "engine bug" not in log  # what an exception says may be a patient's
    assert token not in log


async def test_it_listens_on_the_loopback_only(shared):
    sockets = {str(fd.readlink()) for fd in Path(f"/proc/{shared.pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]

    assert [address.split(":")[0] for address in listening] == ["0100007F"]


async def test_a_kept_connection_answers_without_the_delay_of_nagle(shared, picture):
    times = []
    async with shared.client() as client:
        for _ in range(10):
            start = time.monotonic()
            await client.segment(picture, PROMPTS)
            times.append(time.monotonic() - start)
    assert min(times[2:]) < 0.03


async def test_leaving_a_stream_stops_the_reasoner_within_a_second(shared, picture):
    async with shared.client() as client:
        async with aclosing(client.ask(picture, "slow 2000")) as events:
            async for event in events:
                if isinstance(event, ThinkEvent):
                    break
        start = time.monotonic()
        await events_of(client, picture, "where?")
    assert time.monotonic() - start < 1


async def test_a_correction_does_not_wait_for_the_answer_of_another(shared, picture):
    async with (
        shared.client() as client,
        shared.client() as other,
        aclosing(client.ask(picture, "slow 2000")) as events,
    ):
        async for event in events:
            if isinstance(event, ThinkEvent):
                break
        async with asyncio.timeout(5):
            assert (await other.segment(picture, PROMPTS)).score == 0.75


async def test_of_one_client_only_the_newest_question_goes_on(shared, picture):
    async with shared.client() as client:
        old = client.ask(picture, "slow 2000")
        async for event in old:
            if isinstance(event, ThinkEvent):
                break
        events = await events_of(client, picture, "where?")
        assert isinstance(events[-1], DoneEvent)
        with pytest.raises(SupersededError):
            async for _ in old:
                pass


async def test_a_question_waits_in_line_and_is_told_its_place(shared, picture):
    async with shared.client() as client, shared.client() as other:
        async with aclosing(client.ask(picture, "slow 100")) as events:
            async for event in events:
                if isinstance(event, ThinkEvent):
                    break
            waiting = other.ask(picture, "where?")
            first = await anext(waiting)
        assert first == StatusEvent(stage="waiting", ahead=1)
        assert isinstance([event async for event in waiting][-1], DoneEvent)


async def test_many_clients_at_once_get_their_own_answers(shared, picture):
    async def one(words):
        async with shared.client() as client:
            events = await events_of(client, picture, f"slow {words}")
        return "".join(event.text for event in events if isinstance(event, ThinkEvent))

    traces = await asyncio.gather(*(one(words) for words in range(1, 4)))
    assert traces == ["".join(f"word {n} " for n in range(words)) for words in range(1, 4)]


async def test_kill_9_keeps_what_had_arrived_and_a_new_start_goes_on(picture):
    server = LocalServer("fake", "fake")
    await server.start()
    watch = asyncio.ensure_future(server.watch())
    events = []

    async def ask(client):
        async for event in client.ask(picture, "slow 500"):
            events.append(event)
            if len(events) == 8:
                os.kill(server.pid, signal.SIGKILL)

    async with server.client() as client:
        with pytest.raises(UnreachableError, match="interrupted"):
            await ask(client)
        assert await watch == -signal.SIGKILL
        with pytest.raises(UnreachableError, match="start it"):
            await client.health()
    assert len(events) >= 8
    assert not server.running
    with pytest.raises(UnreachableError):
        server.client()

    await server.start()
    async with server, server.client() as client:
        assert isinstance((await events_of(client, picture, "where?"))[-1], DoneEvent)


async def test_stopping_leaves_nothing_behind(picture):
    server = LocalServer("fake", "fake")
    await server.stop()
    await server.start()
    pid, folder = server.pid, server._folder
    async with server.client() as client, aclosing(client.ask(picture, "slow 2000")) as events:
        await anext(events)
        start = time.monotonic()
        await server.stop()
    assert time.monotonic() - start < 2
    assert not alive(pid)
    assert not folder.exists()
    assert server.pid is None
    assert await server.watch() is None


@pytest.mark.parametrize(
    ("crm", "asm", "sentence"),
    [
        ("nothing", "fake", 'There is no reasoner named "nothing"'),
        ("fake", "broken", 'The segmenter "broken" failed at its warm-up'),
    ],
)
async def test_a_server_that_cannot_start_says_why(crm, asm, sentence):
    server = LocalServer(crm, asm)
    with pytest.raises(UnreachableError, match=sentence):
        await server.start()
    assert not server.running


PARENT = """\
import asyncio, sys
from napari_medreasoner.client.launcher import LocalServer

async def main():
    server = LocalServer("fake", "fake")
    await server.start()
    sys.stdout.write(f"{server.pid}\\n")
    sys.stdout.flush()
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_server_dies_with_a_parent_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert alive(pid)
        parent.kill()
    assert await gone(pid, seconds=5)


def test_it_can_be_run_in_the_loop_of_another_thread(picture):
    found = []

    async def work():
        async with LocalServer("fake", "fake") as server, server.client() as client:
            found.append(await client.segment(picture, PROMPTS))

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    thread.join(30)
    assert found[0].score == 0.75


@pytest.mark.parametrize("shape", [(64, 64), (1, 1)])
async def test_the_engines_that_ship_answer(default_server, shape):
    values = np.random.default_rng(0).normal(size=shape)
    picture = Picture(UploadImage(values), window=(-2, 2))
    async with default_server.client() as client:
        result = await client.segment(picture, Prompts(points=(Point(x=0, y=0),)))
        events = await events_of(client, picture, "Where is the left kidney?")

    assert result.mask.shape == shape
    assert isinstance(events[-1], DoneEvent)
