"""Question in, mask out: reason, parse, segment, as one stream of events."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, TypeVar

from napari_medreasoner.core.errors import EngineError, MedReasonerError
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.grounding import parse_answer
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.protocol import (
    AnswerEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    MaskEvent,
    StatusEvent,
    ThinkEvent,
)
from napari_medreasoner.engines.base import Reasoner, ReasonerInput, Segmenter

__all__ = ["Grounder", "ThinkSplitter", "as_generator"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_SILENCE_MS: Final = 200.0

_MAX_TEXT: Final = 200_000
"""Characters after which a reasoner that never ends is stopped."""


class ThinkSplitter:
    """Cuts the reasoning out of streamed text, piece by piece, wherever the tags are split.

    Shown is what stands between `<think>` and `</think>`; text before the tag is dropped,
    and a tag that is only begun is held back until it is whole.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._inside = False
        self._ended = False

    def feed(self, text: str) -> str:
        """Take the next piece of the completion; return the next piece of reasoning."""
        if self._ended:
            return ""
        self._pending += text
        tag = "</think>" if self._inside else "<think>"
        before, found, after = self._pending.partition(tag)
        if not found:
            held = self._begun(tag)
            shown = self._pending[: len(self._pending) - held] if self._inside else ""
            self._pending = self._pending[len(self._pending) - held :]
            return shown
        self._pending = ""
        if self._inside:
            self._ended = True
            return before
        self._inside = True
        return self.feed(after)

    def _begun(self, tag: str) -> int:
        """Length of the longest end of the pending text that begins the tag."""
        return next((n for n in range(len(tag) - 1, 0, -1) if self._pending.endswith(tag[:n])), 0)


@dataclass
class _Clock:
    """Milliseconds since `start`, and the marks the done event reports."""

    start: float = field(default_factory=perf_counter)
    first_token: float = 0.0
    last_sign: float = 0.0

    def now(self) -> float:
        return (perf_counter() - self.start) * 1000


class Grounder:
    """Runs one reasoner and one segmenter for a question about one picture.

    Parameters
    ----------
    reasoner : Reasoner
        The CRM.
    segmenter : Segmenter
        The ASM.
    """

    def __init__(self, reasoner: Reasoner, segmenter: Segmenter) -> None:
        self.reasoner = reasoner
        self.segmenter = segmenter

    def ground(self, request: ReasonerInput, embedding: Any) -> Generator[Event]:
        """Answer the question.

        Parameters
        ----------
        request : ReasonerInput
            Picture and question.
        embedding : Any
            What `segmenter.set_image` gave for the picture.

        Yields
        ------
        Event
            status, think…, answer, status, mask, done; or an error event as the last one,
            never an exception. Closing the generator stops the reasoner.
        """
        try:
            yield from self._ground(request, embedding)
        except MedReasonerError as error:
            yield ErrorEvent(code=error.code, message=str(error))
        except Exception as error:  # an engine is foreign code: its fault is told, not hidden
            logger.exception("engine failed")
            yield ErrorEvent(
                code=EngineError.code,
                message=f"An engine failed ({type(error).__name__}); the server's log says where. "
                "Try another question or another engine.",
            )

    def _ground(self, request: ReasonerInput, embedding: Any) -> Iterator[Event]:
        clock = _Clock()
        yield StatusEvent(stage="reasoning")
        text: list[str] = []
        trace = hashlib.sha256()
        for event in self._think(request, text, clock):
            if isinstance(event, ThinkEvent):
                trace.update(event.text.encode())
            yield event
        height, width = request.image.shape[:2]
        grounding = parse_answer("".join(text)).on_image(width, height)
        reason_ms = clock.now()
        yield AnswerEvent(box=grounding.box, points=grounding.points)
        yield StatusEvent(stage="segmenting")
        result = self.segmenter.segment(
            embedding, Prompts(box=grounding.box, points=grounding.points)
        )
        yield MaskEvent(mask=PackedMask.pack(result.mask), score=result.score)
        yield DoneEvent(
            trace_sha256=trace.hexdigest(),
            reason_ms=reason_ms,
            segment_ms=clock.now() - reason_ms,
            first_token_ms=clock.first_token,
        )

    def _think(
        self, request: ReasonerInput, text: list[str], clock: _Clock
    ) -> Iterator[ThinkEvent | StatusEvent]:
        """Stream the reasoner; collect its whole text in `text`.

        A sign of life comes in its silences, so that whoever reads can stop it then too.
        """
        splitter = ThinkSplitter()
        length = 0
        with closing(as_generator(self.reasoner.stream(request))) as pieces:
            for piece in pieces:
                if piece:
                    clock.first_token = clock.first_token or clock.now()
                text.append(piece)
                length += len(piece)
                if shown := splitter.feed(piece):
                    clock.last_sign = clock.now()
                    yield ThinkEvent(text=shown)
                elif clock.now() - clock.last_sign > _SILENCE_MS:
                    clock.last_sign = clock.now()
                    yield StatusEvent(stage="reasoning")
                if length > _MAX_TEXT:
                    raise EngineError(
                        f"The reasoner wrote more than {_MAX_TEXT} characters without an end; "
                        "it was stopped."
                    )


def as_generator(items: Iterator[T]) -> Generator[T]:
    """Give any iterator a `close`, so that stopping reaches the engine if it has one."""
    try:
        yield from items
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
