import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial

import pytest

from napari_medreasoner.core.errors import BusyError
from napari_medreasoner.server.worker import Beat, Worker

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
    seen |= {item async for item in worker.stream(items, beat=1) if not isinstance(item, Beat)}
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
    assert (await anext(stream)).first
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
    assert got[1:-1] == [Beat(0)] * len(got[1:-1])
    assert len(got) > 2


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

    assert await asyncio.to_thread(closed.wait, 5)
    assert len(made) < 20


async def test_a_stream_left_while_it_waits_never_starts(worker):
    gate, started = threading.Event(), []

    def items():
        started.append(True)
        yield 1

    first = asyncio.ensure_future(worker.run(gate.wait))
    await asyncio.sleep(0.05)
    async with aclosing(worker.stream(items, beat=0.05)) as stream:
        assert await anext(stream) == Beat(1, first=True)
    gate.set()
    await first
    await worker.run(lambda: None)

    assert not started


async def test_short_jobs_are_done_between_the_items_of_a_stream(worker):
    def items():
        for number in range(200):
            time.sleep(0.01)
            yield number

    async with aclosing(worker.stream(items, beat=1)) as stream:
        while await anext(stream) != 2:
            pass
        await asyncio.wait_for(worker.run(lambda: None), 1)


async def test_streams_wait_in_line_and_know_their_place(worker):
    gate = threading.Event()

    def items():
        gate.wait(10)
        yield "item"

    first, second, third = (worker.stream(items, beat=0.02) for _ in range(3))
    await anext(first)
    await asyncio.sleep(0.05)
    assert await anext(second) == Beat(1, first=True)
    assert await anext(third) == Beat(2, first=True)
    await second.aclose()
    assert await anext(third) == Beat(1)
    gate.set()
    assert "item" in [item async for item in third]
    await first.aclose()


async def test_too_many_jobs_are_refused():
    worker, gate = Worker(most_waiting=2), threading.Event()
    jobs = [asyncio.ensure_future(worker.run(gate.wait))]
    await asyncio.sleep(0.05)
    jobs += [asyncio.ensure_future(worker.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(BusyError):
        await worker.run(lambda: None)
    with pytest.raises(BusyError):
        await anext(worker.stream(lambda: iter(()), beat=1))
    gate.set()
    await asyncio.gather(*jobs)
    assert await worker.run(lambda: 5) == 5
    worker.close()


async def test_idle_work_is_done_when_nothing_waits_and_ends_by_itself():
    left = [1, 2, 3]

    def idle():
        if left:
            left.pop()
        return bool(left)

    worker = Worker(idle=idle)
    await worker.run(lambda: left.extend([4, 5]))
    for _ in range(100):
        if not left:
            break
        await asyncio.sleep(0.01)
    assert not left
    worker.close()


async def test_closing_drops_what_waits():
    worker, gate = Worker(), threading.Event()
    running = asyncio.ensure_future(worker.run(gate.wait))
    await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(worker.run(lambda: None))
    await asyncio.sleep(0.05)
    worker.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await running
