"""napari opened on one sample case, asked and answered: what `medreasoner demo` shows.

Run in a process of its own: `python -m napari_medreasoner.gui.app --case ID
[--screenshot FILE]`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import napari  # type: ignore[import-untyped]
from qtpy.QtCore import QEventLoop, QTimer

from napari_medreasoner.core.errors import InputError, MedReasonerError
from napari_medreasoner.gui.samples import case_layers
from napari_medreasoner.gui.session import Session
from napari_medreasoner.gui.widget import MedReasonerWidget
from napari_medreasoner.imaging.samples import SampleCase, sample_cases

__all__ = ["open_case"]

_WINDOW: Final = (1600, 1000)
_ANSWER_MS: Final = 90_000
_PAINT_MS: Final = 500


def open_case(case: SampleCase, *, screenshot: Path | None) -> None:
    """Open a case in napari with the widget docked, and ask its question.

    Parameters
    ----------
    case : SampleCase
        What to open.
    screenshot : Path or None
        Save the whole window with the answer there and close; None leaves it to the user.

    Raises
    ------
    MedReasonerError
        When a screenshot is wanted and no mask came.
    """
    viewer = napari.Viewer()
    viewer.window.resize(*_WINDOW)
    [(data, options, _)] = case_layers(case)
    viewer.add_image(data, **options)
    widget = MedReasonerWidget(viewer)
    viewer.window.add_dock_widget(widget, name="MedReasoner", area="right")
    widget.ask()
    if screenshot is None:
        napari.run()
        return
    try:
        _photograph(viewer, widget.workspace.session, screenshot)
    finally:
        widget.close_workspace()
        viewer.close()


def _photograph(viewer: Any, session: Session, screenshot: Path) -> None:
    loop = QEventLoop()
    session.events.asking.connect(lambda asking: None if asking else loop.quit())
    QTimer.singleShot(_ANSWER_MS, loop.quit)
    if session.asking:
        loop.exec()
    if session.document is None or session.document.score is None:
        raise MedReasonerError(session.error or "No answer came in time; run medreasoner doctor.")
    QTimer.singleShot(_PAINT_MS, loop.quit)
    loop.exec()
    viewer.screenshot(str(screenshot), canvas_only=False, flash=False)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="napari_medreasoner.gui.app")
    parser.add_argument("--case", required=True)
    parser.add_argument("--screenshot", type=Path)
    options = parser.parse_args()
    try:
        case = next((case for case in sample_cases() if case.id == options.case), None)
        if case is None:
            known = ", ".join(case.id for case in sample_cases())
            raise InputError(f'There is no case "{options.case}"; choose one of: {known}.')
        open_case(case, screenshot=options.screenshot)
    except MedReasonerError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main()
