"""What happens when the user asks, corrects, grows, paints, undoes, exports or restarts.

No Qt here: the layers are behind `View`, time-consuming work behind `Runner`. Every public
method and every callback runs on one thread, the owner's.

The newest action of the user wins: an action that starts something new ends what was under
way (`_supersede`), and what still arrives of that is dropped by the number it carries. The
corrections of one drag are one action and flow through `NewestWins`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import MedReasonerError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.prompts import PromptTemplate, check_question
from napari_medreasoner.gui.asking import Asking, Question
from napari_medreasoner.gui.backend import LOST, Backend, Engines, Server
from napari_medreasoner.gui.background import Runner
from napari_medreasoner.gui.canvas import MaskCanvas
from napari_medreasoner.gui.cases import Case, Cases
from napari_medreasoner.gui.coordinates import slice_shape
from napari_medreasoner.gui.exporting import Naming, export, keep_for_training
from napari_medreasoner.gui.growing import Growing, Seed
from napari_medreasoner.gui.newest import NewestWins
from napari_medreasoner.gui.segmenting import Segmented, Wanted, only_clicks_added, segment
from napari_medreasoner.gui.session import BackendState, Document, Session
from napari_medreasoner.gui.target import ImageSource, Target
from napari_medreasoner.gui.telling import sentence_of

__all__ = ["Controller", "View"]

_NO_PROMPT: Final = "There is no box and no positive point; draw a box or click on the target."


class View(Protocol):
    """The layers, as the controller sees them."""

    def shown(self) -> Target:
        """Return the chosen image and the slice of it on show.

        Raises
        ------
        ImageError
            When no image is chosen, or no engine could work on it as it is shown.
        """
        ...

    def target(self, source: ImageSource, plane: SlicePlane | None) -> Target:
        """Return a slice of an image, on show or not."""
        ...

    def show_prompts(self, source: ImageSource, prompts: Prompts, plane: SlicePlane | None) -> None:
        """Draw box and points."""
        ...

    def show_mask(self, source: ImageSource, pixels: NDArray[np.uint8]) -> None:
        """Draw the mask; the array is always the same one for an image."""
        ...


class Controller:
    """Joins session, layers and backend.

    Parameters
    ----------
    session : Session
        What the widget shows.
    view : View
        The layers.
    runner : Runner
        Runs everything that takes time.
    server : Server
        Local backend process, not started yet.

    Attributes
    ----------
    consent : bool
        The user has agreed that pictures are sent to models on other machines.
    """

    def __init__(self, session: Session, view: View, runner: Runner, server: Server) -> None:
        self.session = session
        self._view = view
        self._runner = runner
        self._backend = Backend(
            server,
            lambda state: runner.deliver(partial(self._on_backend, state)),
            lambda engines: runner.deliver(partial(self._on_engines, engines)),
        )
        self.consent = False
        self._cases = Cases(session, self._new_canvas)
        self._asking = Asking(
            self._cases, session, runner, self._backend, view.show_prompts, self._say
        )
        self._growing = Growing(self._cases, session, runner, self._backend)
        self._segments = NewestWins(
            runner, partial(segment, self._backend), self._segmented, self._segment_failed
        )
        self._turn = 0
        self._dragging = False

    def _new_canvas(self, source: ImageSource) -> MaskCanvas:
        return MaskCanvas(source.shape, self._runner, partial(self._view.show_mask, source))

    def choose(self, source: ImageSource | None) -> None:
        """Turn to another image; each keeps its own document and history."""
        current = self._cases.current
        if source is not (current.source if current else None):
            self._supersede()
            self._cases.choose(source)

    def forget(self, source: ImageSource) -> None:
        """Drop what belongs to an image that is gone."""
        current = self._cases.current
        if current is not None and current.source is source:
            self._supersede()
        self._cases.forget(source)

    def ask(
        self, question: str, modality: str = "", template: PromptTemplate | None = None
    ) -> None:
        """Ask about the slice on show; the trace streams into the document."""
        try:
            asked = check_question(question)
            target = self._view.shown()
        except MedReasonerError as error:
            self._say(error)
            return
        self.choose(target.source)
        self._supersede()
        self._asking.start(target, Question(asked, modality, template, self.consent))

    def stop(self) -> None:
        """Stop asking and segmenting at once; what has arrived stays."""
        self._supersede()
        self.session.status = "Stopped."

    def _supersede(self) -> None:
        """End what is under way: something newer begins."""
        self._turn += 1
        self._dragging = False
        self._asking.cancel()
        self._growing.cancel()
        self._segments.clear()
        self.session.segmenting = False

    def correct(
        self, source: ImageSource, prompts: Prompts, plane: SlicePlane | None, *, final: bool
    ) -> None:
        """Take box and points as the user has them now, and segment again.

        Parameters
        ----------
        source : ImageSource
            The image they lie on.
        prompts : Prompts
            May be empty: the user deleted the last one.
        plane : SlicePlane or None
            The slice they lie on.
        final : bool
            False while the mouse button is down; all up to the final one is one undo step.
        """
        self.choose(source)
        case = self._cases.of(source)
        if (prompts, plane) != (case.document.prompts, case.document.plane):
            if not self._dragging:
                self._supersede()
                self._cases.record(case)
                self._dragging = True
            refine = only_clicks_added(case.document, prompts, plane)
            changed = replace(
                case.document,
                prompts=prompts,
                plane=plane,
                automatic=False,
                stale=True,
                painted=None,
            )
            self._cases.put(case, changed)
            self._segment(case, refine=refine)
        if final:
            self._dragging = False

    def grow(self, span: range | None = None) -> None:
        """Follow the structure through the volume, from the slice the user worked on last.

        Parameters
        ----------
        span : range, optional
            Slices that may change; all of them if left out.
        """
        case = self._cases.current
        if case is None or not (case.document.painted or not case.document.prompts.is_empty):
            self.session.error = _NO_PROMPT
            return
        if len(case.source.shape) != 3:
            self.session.error = "This image has one slice only; there is nothing to grow through."
            return
        self._supersede()
        self._growing.start(case, self._seed(case, span))

    def _seed(self, case: Case, span: range | None) -> Seed:
        """A painted mask is followed as it is, and so is one that fits its prompts."""
        document = case.document
        plane = document.painted or document.plane or SlicePlane(axis=0, index=0)
        mask = None if document.stale and not document.painted else case.canvas.cut(plane)
        return Seed(
            self._view.target(case.source, plane),
            document.prompts if plane == document.plane else Prompts(),
            mask if mask is not None and mask.any() else None,
            span or range(case.source.shape[plane.axis]),
        )

    def _segment(self, case: Case, *, refine: bool = False) -> None:
        """Have the prompts of the document segmented on their slice."""
        document = case.document
        if not document.prompts.is_empty:
            target = self._view.target(case.source, document.plane)
            self.session.error = ""
            self.session.segmenting = True
            self.session.status = "Segmenting…"
            self._segments.want(Wanted(target, document.prompts, refine))
            return
        self._segments.clear()
        self.session.segmenting = False
        if document.prompts.points:
            self.session.error = _NO_PROMPT
            return
        nothing = np.zeros(slice_shape(case.source.shape, document.plane), np.bool_)
        self._replace_part(case, document.plane, nothing, PackedMask.pack(nothing), None)

    def _segmented(self, wanted: Wanted, result: Segmented) -> None:
        case = self._cases.of(wanted.target.source)
        plane = wanted.target.plane
        asked_for = (case.document.prompts, case.document.plane)
        self._replace_part(case, plane, result.mask, result.packed, result.score)
        document = case.document
        # A corrected answer is still the work of the model that answered.
        document = replace(document, algorithm=document.algorithm or result.algorithm)
        self._cases.put(case, document)
        if asked_for != (wanted.prompts, wanted.target.plane):
            self._cases.put(case, replace(case.document, stale=True))
        self.session.latency_ms = result.milliseconds
        self.session.segmenting = self._segments.busy
        self.session.status = "Segmenting…" if self._segments.busy else "Done."

    def _segment_failed(self, error: BaseException) -> None:
        self.session.segmenting = self._segments.busy
        self.session.status = "No mask."
        self._say(error)

    def _replace_part(
        self,
        case: Case,
        plane: SlicePlane | None,
        part: NDArray[np.bool_],
        packed: PackedMask,
        score: float | None,
    ) -> None:
        stack = case.document.mask.with_part(plane, packed)
        self._cases.put(case, replace(case.document, mask=stack, score=score, stale=False))
        case.canvas.draw(plane, part)

    def painting(self, source: ImageSource) -> None:
        """Note that a brush stroke begins: no late reply may overwrite it."""
        self.choose(source)
        self._supersede()

    def painted(self, source: ImageSource, plane: SlicePlane | None) -> None:
        """Take the strokes on the mask as the user's correction.

        Parameters
        ----------
        source : ImageSource
            The image.
        plane : SlicePlane or None
            The slice painted on; None when the stroke may have gone through several.
        """
        case = self._cases.of(source)
        turn = self._turn

        def finish(packed: PackedMask) -> None:
            if turn == self._turn:
                self._cases.record(case)
                stack = case.document.mask.with_part(plane, packed)
                changed = replace(
                    case.document,
                    mask=stack,
                    score=None,
                    automatic=False,
                    stale=False,
                    painted=plane,
                )
                self._cases.put(case, changed)

        work = asyncio.to_thread(PackedMask.pack, case.canvas.cut(plane))
        self._runner.submit(work, finish, self._say)

    def undo(self) -> None:
        """Take back the last action."""
        case = self._cases.current
        if case is not None and case.history.can_undo:
            self._supersede()
            before = case.document
            self._cases.undo(case)
            self._show(case, before)

    def redo(self) -> None:
        """Do again what was taken back."""
        case = self._cases.current
        if case is not None and case.history.can_redo:
            self._supersede()
            before = case.document
            self._cases.redo(case)
            self._show(case, before)

    def _show(self, case: Case, before: Document) -> None:
        """Bring the layers from one document to the current one."""
        after = case.document
        self.session.error = ""
        if (after.prompts, after.plane) != (before.prompts, before.plane):
            self._view.show_prompts(case.source, after.prompts, after.plane)
        if after.mask is not before.mask:
            case.canvas.restore(after.mask, lambda: case.document.mask)
        if after.stale:
            self._segment(case)

    def finding(self) -> Target | None:
        """Return the current finding on the slice on show; None, and said, without a mask."""
        case = self._cases.current
        if case is None or case.document.mask.is_empty:
            self.session.error = "There is no mask yet; ask a question or draw a box first."
            return None
        try:
            return self._view.shown()
        except MedReasonerError:  # no slice on show: that of the prompts
            return self._view.target(case.source, case.document.plane)

    def export(self, path: Path, naming: Naming) -> None:
        """Write the finding as the file's name says; see `exporting.export`."""
        target = self.finding()
        if target is None:
            return
        document = self._cases.of(target.source).document
        self.session.status = "Saving…"
        self._runner.submit(
            asyncio.to_thread(export, path, document, target, naming),
            lambda _: self._saved(path),
            self._not_saved,
        )

    def keep_for_training(self, folder: Path) -> None:
        """Add the finding on the slice it was asked about to a correction log."""
        shown = self.finding()
        if shown is None:
            return
        case = self._cases.of(shown.source)
        target = self._view.target(case.source, case.document.plane)
        self.session.status = "Saving…"
        self._runner.submit(
            asyncio.to_thread(keep_for_training, folder, case.document, target),
            lambda _: self._saved(folder),
            self._not_saved,
        )

    def _saved(self, path: Path) -> None:
        self.session.error = ""
        self.session.status = f"Saved {path}"

    def _not_saved(self, error: BaseException) -> None:
        self.session.status = "Not saved."
        self._say(error)

    def load_template(self, path: Path, on_loaded: Callable[[PromptTemplate], None]) -> None:
        """Read a prompt template file."""
        self._runner.submit(asyncio.to_thread(PromptTemplate.from_file, path), on_loaded, self._say)

    def use_backend(self, server: Server) -> None:
        """Turn to another server; the one in use ends, and everything made with it stays."""
        self._supersede()
        self.session.error = ""
        self.session.engines = ""
        self._runner.submit(self._backend.use(server), lambda _: self._go_on(), self._say)

    def restart_backend(self) -> None:
        """Start the backend again and go on where it left off."""
        self._supersede()
        self._runner.submit(self._backend.restart(), lambda _: self._go_on(), self._say)

    def _go_on(self) -> None:
        self.session.error = ""
        self.session.status = "The backend is back."
        case = self._cases.current
        if case is not None and case.document.stale:
            self._segment(case)

    async def close(self) -> None:
        """End the backend; runs on the background loop as its last work."""
        await self._backend.stop()

    def _on_backend(self, state: BackendState) -> None:
        self.session.backend = state
        if state == "starting":
            self.session.status = "Starting the backend…"
        elif state == "ready":
            self.session.status = "The backend is ready."
        elif state == "lost":
            self.session.error = LOST

    def _on_engines(self, engines: Engines) -> None:
        self.session.engines = engines.in_words

    def _say(self, error: BaseException) -> None:
        """Tell the user in one sentence."""
        self.session.error = sentence_of(error)
