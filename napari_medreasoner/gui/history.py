"""Unlimited undo and redo over frozen states."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["History"]

T = TypeVar("T")


class History(Generic[T]):
    """Two lists of states around the current one, which the owner keeps.

    States are frozen and share what did not change between them, so a step costs little
    more than what it changed.
    """

    def __init__(self) -> None:
        self._past: list[T] = []
        self._future: list[T] = []

    @property
    def can_undo(self) -> bool:
        """Whether there is a state to go back to."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone state to return to."""
        return bool(self._future)

    def record(self, before: T) -> None:
        """Remember the state before a new action; what had been undone is forgotten."""
        self._past.append(before)
        self._future.clear()

    def undo(self, current: T) -> T:
        """Give the state before the last action; only when `can_undo`."""
        self._future.append(current)
        return self._past.pop()

    def redo(self, current: T) -> T:
        """Give the state that the last undo left; only when `can_redo`."""
        self._past.append(current)
        return self._future.pop()
