"""Fifty clients at once: right answers, no cross-talk, a server that still answers."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import engines
import httpx
from backend import Backend, numbered_picture
from counting import Counted, percentile

from napari_medreasoner.client.client import Client
from napari_medreasoner.core.errors import BusyError
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.protocol import HEALTH, AnswerEvent, DoneEvent, ThinkEvent

CLIENTS: Final = 50
_ROUNDS: Final = 4
_HEALTH_LIMIT: Final = 0.1


async def _ask(client: Client, number: int) -> str:
    """Answer of one question: "right", "wrong", "refused" (busy) or "unfinished"."""
    trace, box, done = "", None, False
    try:
        async for event in client.ask(numbered_picture(number), "slow 0.1"):
            if isinstance(event, ThinkEvent):
                trace += event.text
            elif isinstance(event, AnswerEvent):
                box = event.box
            done = done or isinstance(event, DoneEvent)
    except BusyError:
        return "refused"
    if not done:
        return "unfinished"
    right = trace.startswith(engines.trace_of(number)) and box == engines.box_of(number)
    return "right" if right else "wrong"


async def _one(backend: Backend, index: int) -> list[str]:
    answers = []
    async with backend.client() as client:
        for turn in range(_ROUNDS):
            number = index * 100 + turn
            answer = await _ask(client, number)
            for _ in range(20):  # a busy server says so; a user would ask again
                if answer != "refused":
                    break
                answers.append(answer)
                await asyncio.sleep(0.5)
                answer = await _ask(client, number)
            answers.append(answer)
            box = engines.box_of(number)
            found = await client.segment(numbered_picture(number), Prompts(box=box))
            answers.append("right" if found.mask[box.slices].all() else "wrong")
    return answers


async def _watch(backend: Backend, seconds: list[float], stop: asyncio.Event) -> None:
    async with httpx.AsyncClient(
        base_url=backend.url,
        headers={"Authorization": f"Bearer {backend.token}"},
        trust_env=False,
        timeout=30.0,
    ) as http:
        while not stop.is_set():
            start = time.perf_counter()
            (await http.get(HEALTH)).raise_for_status()
            seconds.append(time.perf_counter() - start)
            await asyncio.sleep(0.05)


async def _crowd(backend: Backend) -> tuple[list[str], list[float]]:
    seconds: list[float] = []
    stop = asyncio.Event()
    watcher = asyncio.create_task(_watch(backend, seconds, stop))
    answers = await asyncio.gather(*(_one(backend, index) for index in range(CLIENTS)))
    stop.set()
    await watcher
    return [answer for some in answers for answer in some], seconds


def crowd() -> list[Counted]:
    """Count answers, and time the health route beside them."""
    with Backend() as backend:
        answers, seconds = asyncio.run(_crowd(backend))
    asked = CLIENTS * _ROUNDS * 2
    right, refused = answers.count("right"), answers.count("refused")
    slowest = percentile(seconds, 0.95)
    return [
        Counted(
            f"{CLIENTS} clients: right answers", f"{right} of {asked} ({refused} asked again)",
            right == asked,
        ),
        Counted("answers of another client", str(answers.count("wrong")), "wrong" not in answers),
        Counted(
            "health route beside them, 95th percentile",
            f"{slowest * 1000:.0f} ms of {len(seconds)}",
            slowest < _HEALTH_LIMIT,
        ),
    ]  # fmt: skip
