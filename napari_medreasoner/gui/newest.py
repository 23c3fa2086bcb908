"""Newest wins: one request under way, at most one waiting, and it is the latest."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from napari_medreasoner.gui.background import Job, Runner

__all__ = ["NewestWins"]

W = TypeVar("W")
R = TypeVar("R")


class NewestWins(Generic[W, R]):
    """Sends what is wanted as fast as answers come back, leaving out what was overtaken.

    Replies come in the order of the requests, since only one is under way.

    Parameters
    ----------
    runner : Runner
        Runs the work.
    work : callable
        Turns what is wanted into a coroutine.
    on_result : callable
        Takes what was wanted and its result.
    on_error : callable
        Takes the error; what is waiting is sent all the same.
    """

    def __init__(
        self,
        runner: Runner,
        work: Callable[[W], Coroutine[Any, Any, R]],
        on_result: Callable[[W, R], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._runner = runner
        self._work = work
        self._on_result = on_result
        self._on_error = on_error
        self._job: Job | None = None
        self._sent = 0
        self._waiting: W | None = None
        self._current: W | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is under way or waiting."""
        return self._current is not None or self._waiting is not None

    def want(self, wanted: W) -> None:
        """Ask for this; replaces what was waiting."""
        if self._current is not None:
            self._waiting = wanted
            return
        self._sent += 1
        number = self._sent
        self._current = wanted
        # A runner may call back before `submit` returns, hence the number, not the job.
        self._job = self._runner.submit(
            self._work(wanted),
            lambda result: self._finished(number, wanted, result),
            lambda error: self._failed(number, error),
        )

    def clear(self) -> None:
        """Forget what is wanted; a reply still on its way is dropped by its number."""
        self._sent += 1
        self._waiting = self._current = None
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def _finished(self, number: int, wanted: W, result: R) -> None:
        if number != self._sent:
            return
        self._current = None
        self._on_result(wanted, result)
        self._next(number)

    def _failed(self, number: int, error: BaseException) -> None:
        if number != self._sent:
            return
        self._current = None
        self._on_error(error)
        self._next(number)

    def _next(self, number: int) -> None:
        """Send what is waiting, unless the callback already turned to something else."""
        waiting = self._waiting
        if number == self._sent and waiting is not None:
            self._waiting = None
            self.want(waiting)
