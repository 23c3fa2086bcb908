"""One case per image: its document, its history and the voxels on the screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from napari_medreasoner.gui.canvas import MaskCanvas
from napari_medreasoner.gui.history import History
from napari_medreasoner.gui.session import Document, MaskStack, Session
from napari_medreasoner.gui.target import ImageSource

__all__ = ["Case", "Cases"]


@dataclass
class Case:
    """What belongs to one image while it is open."""

    source: ImageSource
    canvas: MaskCanvas
    document: Document
    history: History[Document] = field(default_factory=History)


class Cases:
    """All cases, and the one the session shows.

    Parameters
    ----------
    session : Session
        Follows the current case.
    new_canvas : callable
        Makes the canvas of an image.
    """

    def __init__(self, session: Session, new_canvas: Callable[[ImageSource], MaskCanvas]) -> None:
        self._session = session
        self._new_canvas = new_canvas
        self._cases: dict[ImageSource, Case] = {}
        self.current: Case | None = None

    def of(self, source: ImageSource) -> Case:
        """Return the case of an image, a new one if it was never asked about."""
        case = self._cases.get(source)
        if case is None:
            case = Case(source, self._new_canvas(source), Document(MaskStack(source.shape)))
            self._cases[source] = case
        return case

    def choose(self, source: ImageSource | None) -> None:
        """Make the case of an image the current one."""
        self.current = None if source is None else self.of(source)
        self._session.document = self.current.document if self.current else None
        self._session.error = ""
        self._tell_history()

    def forget(self, source: ImageSource) -> None:
        """Drop the case of an image that is gone."""
        if self.current is self._cases.pop(source, None):
            self.choose(None)

    def put(self, case: Case, document: Document) -> None:
        """Change a case's document."""
        case.document = document
        if case is self.current:
            self._session.document = document

    def record(self, case: Case) -> None:
        """Remember the document as it is before an action of the user."""
        case.history.record(case.document)
        self._tell_history()

    def undo(self, case: Case) -> None:
        """Put the document before the last action; only when the history has one."""
        self.put(case, case.history.undo(case.document))
        self._tell_history()

    def redo(self, case: Case) -> None:
        """Put the document that the last undo left; only when the history has one."""
        self.put(case, case.history.redo(case.document))
        self._tell_history()

    def _tell_history(self) -> None:
        history = self.current.history if self.current else None
        self._session.can_undo = history is not None and history.can_undo
        self._session.can_redo = history is not None and history.can_redo
