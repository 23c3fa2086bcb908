import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial

import pytest

from napari_medreasoner.server.worker import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


async def test_all_work_is_on_one_thread_even_after_idling(worker):
    def items():
        yield threading.get_ident()

    seen = {await worker.run(threading.get_ident) for _ in range(5)}
    seen |= {item async for item in worker.stream(items, beat=1)}
    await asyncio.sleep(0.2)
    seen.add(await worker.run(threading.get_ident))

    assert len(seen) == 1
    assert threading.get_ident() not in seen


async def test_errors_of_jobs_and_streams_reach_the_caller(worker):
    def items():
        yield 1
        raise LookupError("gone")

    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    stream = worker.stream(items, beat=1)
    assert await anext(stream) == 1
    with pytest.raises(LookupError):
        await anext(stream)


async def test_a_job_cancelled_in_the_queue_never_runs(worker):
    gate, ran = threading.Event(), []
    first = asyncio.ensure_future(worker.run(gate.wait))
    second = asyncio.ensure_future(worker.run(partial(ran.append, "second")))
    third = asyncio.ensure_future(worker.run(partial(ran.append, "third")))
    await asyncio.sleep(0.05)

    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, third)

    assert ran == ["third"]


async def test_a_quiet_stream_beats(worker):
    def items():
        time.sleep(0.25)
        yield "late"

    got = [item async for item in worker.stream(items, beat=0.1)]

    assert got[-1] == "late"
    assert got[:-1] == [None] * len(got[:-1])
    assert len(got) > 1


async def test_leaving_a_stream_closes_the_generator_between_items(worker):
    closed, made = threading.Event(), []

    def items():
        try:
            for number in range(10_000):
                made.append(number)
                time.sleep(0.01)
                yield number
        finally:
            closed.set()

    async with aclosing(worker.stream(items, beat=1)) as stream:
        async for number in stream:
            if number == 3:
                break

    assert await worker.run(closed.is_set)
    assert len(made) < 20


async def test_a_stream_left_while_it_waits_never_starts(worker):
    gate, started = threading.Event(), []

    def items():
        started.append(True)
        yield 1

    first = asyncio.ensure_future(worker.run(gate.wait))
    await asyncio.sleep(0.05)
    async with aclosing(worker.stream(items, beat=0.05)) as stream:
        assert await anext(stream) is None
    gate.set()
    await first
    await worker.run(lambda: None)

    assert not started
