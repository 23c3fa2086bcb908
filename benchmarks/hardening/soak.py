"""Many minutes of work: memory and file handles must stay flat."""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

import engines
import numpy as np
from backend import Backend, numbered_picture
from counting import Counted

from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.protocol import DoneEvent

_MIB: Final = 2**20
_CLIENTS: Final = 4
_PICTURES: Final = 50
_WARM_UP: Final = 0.3
_SLOPE: Final = 10.0
_SAMPLE_SECONDS: Final = 2.0


class _Sample(NamedTuple):
    seconds: float
    rss: int
    handles: int


async def _work(backend: Backend, index: int, end: float) -> int:
    """Ask and correct until the time is over, a new connection for every hundred answers."""
    answered, number, first = 0, 0, index * _PICTURES
    while time.monotonic() < end:
        async with backend.client() as client:
            for _ in range(100):
                number += 1
                picture = numbered_picture(first + number % _PICTURES)
                events = [event async for event in client.ask(picture, "quick")]
                await client.segment(picture, Prompts(box=engines.box_of(number)))
                answered += isinstance(events[-1], DoneEvent)
                if time.monotonic() >= end:
                    break
    return answered


async def _watch(backend: Backend, end: float) -> list[_Sample]:
    samples, start = [], time.monotonic()
    while time.monotonic() < end:
        inner = backend.inner
        samples.append(_Sample(time.monotonic() - start, inner.memory_info().rss, inner.num_fds()))
        await asyncio.sleep(_SAMPLE_SECONDS)
    return samples


async def _soak(backend: Backend, minutes: float) -> tuple[int, list[_Sample]]:
    end = time.monotonic() + minutes * 60
    work = [_work(backend, index, end) for index in range(_CLIENTS)]
    samples, *answered = await asyncio.gather(_watch(backend, end), *work)
    return sum(answered), samples


def soak(minutes: float) -> list[Counted]:
    """Work for a while and fit a line to memory and handles after a warm-up."""
    with Backend() as backend:
        answered, samples = asyncio.run(_soak(backend, minutes))
    settled = samples[int(len(samples) * _WARM_UP) :]
    hours = [sample.seconds / 3600 for sample in settled]
    slope = float(np.polyfit(hours, [sample.rss / _MIB for sample in settled], 1)[0])
    first, last = settled[0], settled[-1]
    spread = max(sample.handles for sample in settled) - min(sample.handles for sample in settled)
    memory = f"{first.rss / _MIB:.1f} to {last.rss / _MIB:.1f} MiB, slope {slope:.1f} MiB/h"
    return [
        Counted(f"{minutes:g} minutes, {answered} answers: memory", memory, slope <= _SLOPE),
        Counted("file handles, spread", str(spread), spread <= 2 * _CLIENTS),
    ]
