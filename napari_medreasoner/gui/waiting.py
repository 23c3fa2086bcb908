"""Long work for a caller who cannot go on without it, with the window alive meanwhile.

napari calls readers and writers on the Qt thread and wants their result back. The work runs
beside, under a modal dialog; where nobody could see one it simply runs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Final, TypeVar

from qtpy.QtCore import QEventLoop, Qt, QThread, QTimer
from qtpy.QtWidgets import QApplication, QMainWindow, QProgressDialog, QWidget

from napari_medreasoner.gui.mailbox import Mailbox

__all__ = ["Abandoned", "main_window", "wait_for"]

T = TypeVar("T")

_PATIENCE_MS: Final = 300
"""Work that is done by then shows no dialog."""

_TITLE: Final = "MedReasoner"


class Abandoned(Exception):
    """The user did not want to wait; no error to tell anybody about."""


def main_window() -> QWidget | None:
    """Return the window to open dialogs over; None without one, or beside the Qt thread."""
    application = QApplication.instance()
    if not isinstance(application, QApplication):
        return None
    if QThread.currentThread() != application.thread():
        return None
    windows = [
        widget
        for widget in application.topLevelWidgets()
        if isinstance(widget, QMainWindow) and widget.isVisible()
    ]
    active = application.activeWindow()
    return active if active in windows else next(iter(windows), None)


def wait_for(
    work: Callable[[], T], sentence: str, window: QWidget | None, *, can_cancel: bool = True
) -> T:
    """Run work on a thread of its own and return its result, with Qt's events served meanwhile.

    Parameters
    ----------
    work : callable
        Raises what the caller will see raised.
    sentence : str
        What is being done, for the dialog that shows after a moment.
    window : QWidget or None
        What the dialog keeps from being used; without it the work runs on this thread.
    can_cancel : bool
        Whether the dialog has a Cancel button.

    Raises
    ------
    Abandoned
        When the user cancelled. The thread runs on to its end, and its result is dropped: a
        child process that reads a file is left to its own time limit.
    """
    if window is None:
        return work()
    future: Future[T] = Future()
    loop, mailbox = QEventLoop(), Mailbox()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (handed on, not swallowed)
            future.set_exception(error)
        mailbox.post(loop.quit)

    Thread(target=run, name="medreasoner work", daemon=True).start()
    _serve_quietly(loop)
    if not future.done() and _cancelled(loop, sentence, window, can_cancel):
        mailbox.close()
        raise Abandoned
    return future.result()


def _serve_quietly(loop: QEventLoop) -> None:
    """Paint and listen to timers for a moment, but take no input that could start more."""
    timer = QTimer()
    timer.setSingleShot(True)
    timer.timeout.connect(loop.quit)
    timer.start(_PATIENCE_MS)
    loop.exec(QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents)
    timer.stop()


def _cancelled(loop: QEventLoop, sentence: str, window: QWidget, can_cancel: bool) -> bool:
    """Show the dialog until the loop ends; whether the user ended it."""
    dialog = QProgressDialog(sentence, "Cancel", 0, 0, window)
    dialog.setWindowTitle(_TITLE)
    dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
    dialog.setMinimumWidth(380)
    if can_cancel:
        dialog.canceled.connect(loop.quit)
    else:
        dialog.setCancelButton(None)
    dialog.show()
    loop.exec()
    cancelled = can_cancel and dialog.wasCanceled()
    dialog.hide()
    dialog.deleteLater()
    return cancelled
