"""One structure being followed through a volume: slices arrive and are drawn one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.protocol import PropagatedEvent, SliceEvent, StatusEvent
from napari_medreasoner.gui.backend import Backend
from napari_medreasoner.gui.background import Job, Runner
from napari_medreasoner.gui.cases import Case, Cases
from napari_medreasoner.gui.session import Session
from napari_medreasoner.gui.target import Target
from napari_medreasoner.gui.telling import sentence_of, waiting_for

__all__ = ["Growing", "Seed"]

_DOUBT: Final = 0.75
"""A slice is doubtful below this part of the middle confidence of all slices."""


class Seed(NamedTuple):
    """Where growth starts.

    Attributes
    ----------
    target : Target
        The slice.
    prompts : Prompts
        On it; may be empty when there is a mask.
    mask : ndarray of bool, shape (row, column), or None
        Its mask, taken as it is.
    span : range
        Slices that may change.
    """

    target: Target
    prompts: Prompts
    mask: NDArray[np.bool_] | None
    span: range


class Growing:
    """Runs at most one growth; what arrives of an earlier one is dropped by its number.

    Parameters
    ----------
    cases : Cases
        Where the slices go.
    session : Session
        Told progress and latency.
    runner : Runner
        Runs the stream.
    backend : Backend
        Gives the client.
    """

    def __init__(self, cases: Cases, session: Session, runner: Runner, backend: Backend) -> None:
        self._cases = cases
        self._session = session
        self._runner = runner
        self._backend = backend
        self._number = 0
        self._job: Job | None = None
        self._scores: dict[int, float] = {}

    def start(self, case: Case, seed: Seed) -> None:
        """Grow; one step of the history, however many slices come."""
        self._cases.record(case)
        self._cases.put(case, replace(case.document, doubtful=()))
        self._session.error = ""
        self._session.status = "Growing through the volume…"
        self._session.segmenting = True
        self._scores = {}
        self._number += 1
        number = self._number
        self._job = self._runner.submit(
            self._stream(number, case, seed),
            lambda _: self._ended(number, case, seed, None),
            lambda error: self._ended(number, case, seed, error),
        )

    def cancel(self) -> None:
        """Stop at once; the slices that have arrived stay."""
        self._number += 1
        if self._job is not None:
            self._job.cancel()
            self._job = None

    async def _stream(self, number: int, case: Case, seed: Seed) -> None:
        async with self._backend.client() as client:
            algorithm = (await self._backend.engines(client)).of_mask
            picture = await asyncio.to_thread(seed.target.picture)
            events = client.propagate(
                picture, seed.prompts, span=(seed.span[0], seed.span[-1]), mask=seed.mask
            )
            async for event in events:
                act: Callable[[], None] | None = None
                if isinstance(event, StatusEvent) and event.stage == "waiting":
                    act = partial(self._tell, waiting_for(event.ahead))
                elif isinstance(event, SliceEvent):
                    pixels = event.mask.unpack()
                    act = partial(self._take, case, seed, event, pixels, algorithm)
                elif isinstance(event, PropagatedEvent):
                    act = partial(self._take_time, event.milliseconds)
                if act is not None:
                    self._runner.deliver(partial(self._if_current, number, act))

    def _if_current(self, number: int, act: Callable[[], None]) -> None:
        if number == self._number:
            act()

    def _tell(self, status: str) -> None:
        self._session.status = status

    def _take_time(self, milliseconds: float) -> None:
        self._session.latency_ms = milliseconds

    def _take(
        self,
        case: Case,
        seed: Seed,
        event: SliceEvent,
        pixels: NDArray[np.bool_],
        algorithm: str,
    ) -> None:
        plane = _beside(seed, event.index)
        document = case.document
        seeded = seed.target.plane == plane
        changed = replace(
            document,
            mask=document.mask.with_part(plane, event.mask),
            score=event.score if seeded and seed.mask is None else document.score,
            algorithm=document.algorithm or algorithm,
            stale=document.stale and not seeded,
        )
        self._cases.put(case, changed)
        case.canvas.draw(plane, pixels)
        self._scores[event.index] = event.score
        self._session.status = f"Growing: slice {event.index}, {len(self._scores)} in all…"

    def _ended(self, number: int, case: Case, seed: Seed, error: BaseException | None) -> None:
        if number != self._number:
            return
        self._job = None
        self._session.segmenting = False
        doubtful = tuple(_beside(seed, index) for index in _doubtful(self._scores))
        self._cases.put(case, replace(case.document, doubtful=doubtful))
        if error is not None:
            self._session.status = f"Growth ended early, after {len(self._scores)} slices."
            self._session.error = sentence_of(error)
            return
        self._empty_the_rest(case, seed)
        check = f"; check {len(doubtful)} doubtful" if doubtful else ""
        self._session.status = f"Done: {len(self._scores)} slices{check}."

    def _empty_the_rest(self, case: Case, seed: Seed) -> None:
        """Slices of the span that the structure does not reach hold nothing of it."""
        rest = [_beside(seed, index) for index in seed.span if index not in self._scores]
        touched = [plane for plane in rest if case.canvas.cut(plane).any()]
        stack = case.document.mask
        for plane in touched:
            nothing = np.zeros(plane.cut(case.canvas.pixels).shape, np.bool_)
            stack = stack.with_part(plane, PackedMask.pack(nothing))
            case.canvas.draw(plane, nothing)
        if touched:
            self._cases.put(case, replace(case.document, mask=stack))


def _beside(seed: Seed, index: int) -> SlicePlane:
    plane = seed.target.plane
    if plane is None:
        raise ValueError("growth starts on a slice of a volume")
    return SlicePlane(axis=plane.axis, index=index)


def _doubtful(scores: dict[int, float]) -> list[int]:
    if not scores:
        return []
    limit = _DOUBT * median(scores.values())
    return sorted(index for index, score in scores.items() if score < limit)
