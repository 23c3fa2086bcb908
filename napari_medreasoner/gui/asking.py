"""One question under way: its events turned into the document, until done or stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.prompts import PromptTemplate
from napari_medreasoner.core.protocol import (
    AnswerEvent,
    DoneEvent,
    Event,
    MaskEvent,
    StatusEvent,
    ThinkEvent,
)
from napari_medreasoner.gui.backend import Backend
from napari_medreasoner.gui.background import Job, Runner
from napari_medreasoner.gui.cases import Case, Cases
from napari_medreasoner.gui.session import Ending, MaskStack, Session
from napari_medreasoner.gui.target import ImageSource, Target
from napari_medreasoner.gui.telling import waiting_for

__all__ = ["Asking", "Question"]

_STAGES: Final = {
    "reasoning": "Reasoning…",
    "segmenting": "Segmenting…",
}


class Question(NamedTuple):
    """What is asked: text, kind of image, prompt template, and whether pictures may leave."""

    text: str
    modality: str = ""
    template: PromptTemplate | None = None
    consent: bool = False


class _Mask(NamedTuple):
    packed: PackedMask
    pixels: NDArray[np.bool_]
    score: float
    algorithm: str


class Asking:
    """Runs at most one question; what arrives of an earlier one is dropped by its number.

    Parameters
    ----------
    cases : Cases
        Where the answer goes.
    session : Session
        Told stage and latency.
    runner : Runner
        Runs the stream.
    backend : Backend
        Gives the client.
    show_prompts : callable
        Draws the answer's box and points.
    say : callable
        Tells the user of an error.
    """

    def __init__(
        self,
        cases: Cases,
        session: Session,
        runner: Runner,
        backend: Backend,
        show_prompts: Callable[[ImageSource, Prompts, SlicePlane | None], None],
        say: Callable[[BaseException], None],
    ) -> None:
        self._cases = cases
        self._session = session
        self._runner = runner
        self._backend = backend
        self._show_prompts = show_prompts
        self._say = say
        self._number = 0
        self._job: Job | None = None
        self._unanswered: Case | None = None

    def start(self, target: Target, question: Question) -> None:
        """Ask; the old prompts and mask stay until an answer replaces them."""
        case = self._cases.of(target.source)
        self._cases.record(case)
        self._cases.put(
            case,
            replace(
                case.document,
                question=question.text,
                modality=question.modality,
                trace="",
                ending="",
            ),
        )
        self._session.error = ""
        self._session.status = "Asking…"
        self._session.asking = True
        self._unanswered = case
        self._number += 1
        number = self._number
        self._job = self._runner.submit(
            self._stream(number, target, question),
            lambda _: self._ended(number, None),
            lambda error: self._ended(number, error),
        )

    def cancel(self) -> None:
        """Stop at once; what has arrived stays."""
        self._number += 1
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self._end_trace("stopped")
        self._session.asking = False

    async def _stream(self, number: int, target: Target, question: Question) -> None:
        async with self._backend.client() as client:
            engines = await self._backend.engines(client)
            picture = await asyncio.to_thread(target.picture)
            events = client.ask(
                picture,
                question.text,
                modality=question.modality,
                template=question.template,
                consent=question.consent,
            )
            async for event in events:
                mask = None
                if isinstance(event, MaskEvent):
                    mask = _Mask(event.mask, event.mask.unpack(), event.score, engines.of_answer)
                self._runner.deliver(partial(self._take, number, target, event, mask))

    def _take(self, number: int, target: Target, event: Event, mask: _Mask | None) -> None:
        if number != self._number:
            return
        case = self._cases.of(target.source)
        document = case.document
        if isinstance(event, StatusEvent):
            self._session.status = _STAGES.get(event.stage) or waiting_for(event.ahead)
        elif isinstance(event, ThinkEvent):
            self._cases.put(case, replace(document, trace=document.trace + event.text))
        elif isinstance(event, AnswerEvent):
            self._take_answer(case, target.plane, event)
        elif mask is not None:
            self._take_mask(case, target.plane, mask)
        elif isinstance(event, DoneEvent):
            self._session.latency_ms = event.reason_ms + event.segment_ms

    def _take_answer(self, case: Case, plane: SlicePlane | None, event: AnswerEvent) -> None:
        """Replace the finding: a new answer is about something else than the old mask."""
        self._unanswered = None
        prompts = Prompts(box=event.box, points=event.points)
        mask = MaskStack(case.source.shape)
        changed = replace(
            case.document,
            prompts=prompts,
            proposed=prompts,
            plane=plane,
            mask=mask,
            score=None,
            stale=True,
            painted=None,
            doubtful=(),
        )
        self._cases.put(case, changed)
        self._show_prompts(case.source, prompts, plane)
        case.canvas.restore(mask, lambda: case.document.mask)

    def _take_mask(self, case: Case, plane: SlicePlane | None, mask: _Mask) -> None:
        changed = replace(
            case.document,
            mask=case.document.mask.with_part(plane, mask.packed),
            score=mask.score,
            algorithm=mask.algorithm,
            automatic=True,
            stale=False,
        )
        self._cases.put(case, changed)
        case.canvas.draw(plane, mask.pixels)

    def _ended(self, number: int, error: BaseException | None) -> None:
        if number != self._number:
            return
        self._job = None
        self._session.asking = False
        self._session.status = "Done." if error is None else "No answer."
        if error is not None:
            self._end_trace("no answer" if isinstance(error, AnswerError) else "interrupted")
            self._say(error)

    def _end_trace(self, ending: Ending) -> None:
        """Mark the trace as ending early, if its answer has not come."""
        case, self._unanswered = self._unanswered, None
        if case is not None:
            self._cases.put(case, replace(case.document, ending=ending))
