"""Servers killed in the middle of an answer, and answers stopped by the client."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from typing import Final

from backend import Backend, numbered_picture
from counting import Counted, percentile

from napari_medreasoner.core.errors import UnreachableError
from napari_medreasoner.core.protocol import DoneEvent, ThinkEvent

KILLS: Final = 50
CANCELS: Final = 100
_CANCEL_LIMIT: Final = 1.0


async def _killed(backend: Backend, number: int, words: int) -> tuple[str, str]:
    """Kill the server after some words; return how the stream ended and what was kept."""
    kept = ""
    async with backend.client() as client:
        try:
            async for event in client.ask(numbered_picture(number), "slow 5"):
                if isinstance(event, DoneEvent):
                    return "finished", kept
                if isinstance(event, ThinkEvent):
                    kept += event.text
                    words -= 1
                    if words == 0:
                        backend.kill()
        except UnreachableError:
            return "interrupted", kept
    return "silent", kept


async def _answered(backend: Backend, number: int) -> bool:
    async with backend.client() as client:
        events = [event async for event in client.ask(numbered_picture(number), "quick")]
    return isinstance(events[-1], DoneEvent)


def kills() -> list[Counted]:
    """Kill the server in the middle of answers, start it again and ask on."""
    chance = random.Random(0)  # noqa: S311 - no secret
    interrupted = kept_all = answered = 0
    with Backend() as backend:
        for number in range(KILLS):
            words = chance.randint(1, 40)
            ending, kept = asyncio.run(_killed(backend, number, words))
            interrupted += ending == "interrupted"
            kept_all += kept.startswith("This picture has the number") and len(kept) > 0
            backend.restart()
            answered += asyncio.run(_answered(backend, number))
    return [
        Counted("kill -9: shown as interrupted", f"{interrupted} of {KILLS}", interrupted == KILLS),
        Counted("text before it kept", f"{kept_all} of {KILLS}", kept_all == KILLS),
        Counted("answered after a restart", f"{answered} of {KILLS}", answered == KILLS),
    ]


async def _stop(backend: Backend, number: int) -> float:
    """Stop an answer in the middle; return how long the reasoner went on."""
    async with (
        backend.client() as client,
        aclosing(client.ask(numbered_picture(number), "slow 20")) as events,
    ):
        async for event in events:
            if isinstance(event, ThinkEvent):
                break
    stopped = time.time()
    while time.time() < stopped + 10:
        lines = backend.endings.read_text().splitlines() if backend.endings.exists() else []
        for line in lines:
            which, how, at = line.split()
            if int(which) == number and how == "closed":
                return float(at) - stopped
        await asyncio.sleep(0.02)
    return float("inf")


def cancels() -> list[Counted]:
    """Stop answers, and see when the reasoner does."""
    with Backend() as backend:
        seconds = [asyncio.run(_stop(backend, number)) for number in range(CANCELS)]
    quick = sum(second <= _CANCEL_LIMIT for second in seconds)
    slowest = f"slowest {max(seconds):.2f} s, median {percentile(seconds, 0.5):.2f} s"
    return [
        Counted("cancel within 1 s", f"{quick} of {CANCELS} ({slowest})", quick == CANCELS),
    ]
