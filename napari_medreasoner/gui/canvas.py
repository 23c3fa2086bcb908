"""The voxels on the screen: one array, written in place, that follows the document's mask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.gui.background import Runner
from napari_medreasoner.gui.session import MaskStack

__all__ = ["MaskCanvas"]


class MaskCanvas:
    """The mask of one image as the labels layer holds it (0 and 1).

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the image.
    runner : Runner
        Unpacks masks beside the caller's thread.
    show : callable
        Called with `pixels` after each change.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        runner: Runner,
        show: Callable[[NDArray[np.uint8]], None],
    ) -> None:
        self.pixels = np.zeros(shape, np.uint8)
        self._runner = runner
        self._show = show
        self._restoring: MaskStack | None = None

    def draw(self, plane: SlicePlane | None, part: NDArray[np.bool_]) -> None:
        """Write one slice, or, without a plane, everything."""
        self._part(plane)[...] = part
        self._show(self.pixels)

    def cut(self, plane: SlicePlane | None) -> NDArray[np.bool_]:
        """Copy of one slice, or, without a plane, of everything."""
        return self._part(plane) > 0

    def restore(self, stack: MaskStack, current: Callable[[], MaskStack]) -> None:
        """Show a whole stack again, unpacked in the background.

        Parameters
        ----------
        stack : MaskStack
            What to show.
        current : callable
            Gives the document's mask; when it moved on meanwhile, that is shown instead.
        """
        if stack.is_empty:
            self._restoring = None
            self.draw(None, np.zeros(stack.shape, np.bool_))
            return
        self._restoring = stack

        def finish(whole: NDArray[np.bool_]) -> None:
            if self._restoring is not stack:
                return
            self._restoring = None
            if current() is stack:
                self.draw(None, whole)
            else:
                self.restore(current(), current)

        def give_up(error: BaseException) -> None:
            raise error  # a mask of our own that cannot be unpacked is a bug, not an event

        self._runner.submit(asyncio.to_thread(stack.compose), finish, give_up)

    def _part(self, plane: SlicePlane | None) -> NDArray[Any]:
        return self.pixels if plane is None else plane.cut(self.pixels)
