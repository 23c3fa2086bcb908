"""A model's text as it streams, its answer in pixels of the image."""

from __future__ import annotations

from typing import Final

from napari_medreasoner.engines.models.card import Answers
from napari_medreasoner.engines.reasoners.answers import rewritten
from napari_medreasoner.engines.reasoners.coordinates import Space

__all__ = ["AnswerRewriter"]

_THINK: Final = "<think>"
_THOUGHT: Final = "</think>"
_ANSWER: Final = "<answer>"
_ANSWERED: Final = "</answer>"


class AnswerRewriter:
    """Passes the trace on piece by piece and holds the answer back until it is whole.

    Parameters
    ----------
    space : Space
        How the model writes places in this image.
    answers : Answers
        What it was trained to give. When half of an answer may have to be added, the end of
        the trace is held back too, so that the trace can say so.

    Attributes
    ----------
    finished : bool
        The answer block has ended; nothing after it is read.
    """

    def __init__(self, space: Space, answers: Answers) -> None:
        self._space = space
        self._answers = answers
        self._stops = (_ANSWER,) if answers == "box and points" else (_THOUGHT, _ANSWER)
        self._passed = ""
        self._held = ""
        self._holding = False
        self.finished = False

    def feed(self, text: str) -> str:
        """Take the next piece of the model's text; return what can be shown of it."""
        if self.finished:
            return ""
        self._held += text
        if not self._holding:
            cut, self._holding = self._cut()
            shown, self._held = self._held[:cut], self._held[cut:]
            self._passed += shown
            if not self._holding:
                return shown
            return shown + self.feed("")
        begin = self._held.find(_ANSWER)
        end = self._held.find(_ANSWERED, begin) if begin >= 0 else -1
        if end < 0:
            return ""
        self._held = self._held[: end + len(_ANSWERED)]
        return self.finish()

    def finish(self) -> str:
        """Return what is still held back, as the model has ended."""
        self.finished = True
        before, answer, rest = self._held.partition(_ANSWER)
        self._held = ""
        if not answer:
            return before
        block, note = rewritten(answer + rest, self._space, self._answers)
        return self._noted(before, note) + block

    def _cut(self) -> tuple[int, bool]:
        """Where a stop begins and whether it is whole; the end where there is none."""
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            return min(found), True
        begun = self._held.rfind("<")
        if begun >= 0 and any(stop.startswith(self._held[begun:]) for stop in self._stops):
            return begun, False
        return len(self._held), False

    def _noted(self, before: str, note: str) -> str:
        """Put a note at the end of the trace, or make it the trace where there is none."""
        if not note:
            return before
        begun = 0 if _THINK in self._passed else before.find(_THINK)
        if begun < 0:
            return f"{before}{_THINK}{note}{_THOUGHT}"
        ended = before.find(_THOUGHT, begun)
        place = ended if ended >= 0 else len(before)
        return before[:place] + note + before[place:]
