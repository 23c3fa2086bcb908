"""What the model sees: the slice on show through the window on show, small, as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.gui.background import Runner
from napari_medreasoner.gui.newest import NewestWins
from napari_medreasoner.gui.target import Target
from napari_medreasoner.imaging.window import model_picture

__all__ = ["SIDE", "Preview"]

SIDE: Final = 96
"""Pixels of the longer side."""


class Preview:
    """Makes the thumbnail beside the Qt thread, since the image may be lazy; newest wins.

    Parameters
    ----------
    runner : Runner
        Runs the work.
    show : callable
        Takes the picture, shape (row, column, 3), or None for none.
    say : callable
        Takes an error.
    """

    def __init__(
        self,
        runner: Runner,
        show: Callable[[NDArray[np.uint8] | None], None],
        say: Callable[[BaseException], None],
    ) -> None:
        self._show = show
        self._newest = NewestWins(runner, self._work, lambda _, made: show(made), say)

    def want(self, target: Target | None) -> None:
        """Show this slice next; None shows nothing at once."""
        if target is None:
            self._newest.clear()
            self._show(None)
        else:
            self._newest.want(target)

    async def _work(self, target: Target) -> NDArray[np.uint8]:
        return await asyncio.to_thread(
            lambda: model_picture(target.source.slice(target.plane), target.window, SIDE)
        )
