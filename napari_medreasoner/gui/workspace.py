"""Everything behind the widget, wired together, with one way to end it."""

from __future__ import annotations

import asyncio
from typing import Final

from napari.components import ViewerModel  # type: ignore[import-untyped]
from psygnal import Signal
from qtpy.QtWidgets import QApplication

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.gui.backend import Server
from napari_medreasoner.gui.background import BackgroundLoop
from napari_medreasoner.gui.controller import Controller
from napari_medreasoner.gui.layers import LayerView
from napari_medreasoner.gui.mailbox import Mailbox
from napari_medreasoner.gui.preview import Preview
from napari_medreasoner.gui.session import Session
from napari_medreasoner.gui.target import ImageSource
from napari_medreasoner.gui.telling import sentence_of
from napari_medreasoner.imaging import cool_down, warm_up

__all__ = ["Workspace"]

_STOP_SECONDS: Final = 6.0
"""Longest wait at the end: a little more than the launcher takes to kill a deaf server."""

_UNDO: Final = "Control-Z"
_REDO: Final = "Control-Shift-Z"


class Workspace:
    """Session, layers, controller, background thread and backend of one widget.

    It is no part of any Qt object, so that it can be closed while those are destroyed.

    Parameters
    ----------
    viewer : ViewerModel
        A napari viewer.
    server : Server
        Local backend process, not started yet.
    """

    pictured = Signal(object)
    """What the model sees of the slice on show, shape (row, column, 3); None when nothing."""

    def __init__(self, viewer: ViewerModel, server: Server) -> None:
        self._viewer = viewer
        self._mailbox = Mailbox()
        self._loop = BackgroundLoop(self._mailbox.post)
        self._closed = False
        self.session = Session()
        self.view = LayerView(viewer)
        self.controller = Controller(self.session, self.view, self._loop, server)
        self._preview = Preview(self._loop, self.pictured.emit, self._say)
        self._connect()
        # The next file opens without waiting for its reader's start.
        self._loop.submit(asyncio.to_thread(warm_up), lambda _: None, self._say)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close)

    def _connect(self) -> None:
        view, controller = self.view, self.controller

        def edited(
            source: ImageSource, prompts: Prompts, plane: SlicePlane | None, final: bool
        ) -> None:
            controller.correct(source, prompts, plane, final=final)

        view.edited.connect(edited)
        view.painting.connect(controller.painting)
        view.painted.connect(controller.painted)
        view.chosen.connect(lambda _: controller.choose(view.source))
        view.forgotten.connect(controller.forget)
        view.looked.connect(self.look)
        view.refused.connect(self._refuse)
        view.undo.connect(controller.undo)
        view.redo.connect(controller.redo)
        self._viewer.bind_key(_UNDO, lambda _: controller.undo(), overwrite=True)
        self._viewer.bind_key(_REDO, lambda _: controller.redo(), overwrite=True)

    def _refuse(self, sentence: str) -> None:
        self.session.error = sentence

    def _say(self, error: BaseException) -> None:
        self._refuse(sentence_of(error))

    def look(self) -> None:
        """Have what the model sees of the slice on show pictured."""
        try:
            target = self.view.shown()
        except ImageError:  # said when it is asked about
            target = None
        self._preview.want(target)

    def close(self) -> None:
        """End thread and backend and let go of the viewer; harmless the second time."""
        if self._closed:
            return
        self._closed = True
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.disconnect(self.close)
        self._mailbox.close()
        self.view.close()
        for key in (_UNDO, _REDO):
            self._viewer.bind_key(key, None)
        self._loop.stop(self._end(), _STOP_SECONDS)

    async def _end(self) -> None:
        await asyncio.to_thread(cool_down)
        await self.controller.close()
