"""The dock widget: panels on one side, session and controller on the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import numpy as np
from magicgui.widgets import ComboBox
from napari.components import ViewerModel  # type: ignore[import-untyped]
from napari.layers import Image  # type: ignore[import-untyped]
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QDialog, QFileDialog, QLabel, QVBoxLayout, QWidget

from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.core.errors import MedReasonerError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.core.prompts import BUILT_IN, PromptTemplate
from napari_medreasoner.gui.backend import Server
from napari_medreasoner.gui.backend_dialog import BackendChoice, BackendDialog, server_of
from napari_medreasoner.gui.export_dialog import NamingDialog, ask_path
from napari_medreasoner.gui.exporting import DICOM_SEG, Naming, kinds_for
from napari_medreasoner.gui.images import (
    LayerNotes,
    bring_into_view,
    notes_of,
    show_slice,
)
from napari_medreasoner.gui.panels import (
    CorrectionPanel,
    QuestionPanel,
    ReasoningPanel,
    StatusPanel,
)
from napari_medreasoner.gui.session import BackendState, Document
from napari_medreasoner.gui.workspace import Workspace
from napari_medreasoner.imaging.window import PRESETS, preset_window

__all__ = ["MedReasonerWidget"]

_FROM_FILE: Final = "From file…"
_NOTICE: Final = "Research use only. Not for diagnosis."


class MedReasonerWidget(QWidget):
    """Ask a medical image a question, watch the reasoning, correct the answer.

    Parameters
    ----------
    napari_viewer : Viewer
        Filled in by napari.
    server : Server, optional
        Instead of the project's own local backend.
    """

    def __init__(self, napari_viewer: ViewerModel, server: Server | None = None) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._templates = dict(BUILT_IN)
        self._begun: WeakSet[Image] = WeakSet()
        self._choice = BackendChoice()
        self.workspace = Workspace(napari_viewer, server or LocalServer())
        view = self.workspace.view
        self._images: Any = ComboBox(nullable=True, choices=lambda _: view.images())
        self.question_panel = QuestionPanel(self._images.native)
        self.reasoning_panel = ReasoningPanel()
        self.correction_panel = CorrectionPanel()
        self.status_panel = StatusPanel()
        self._lay_out()
        self._connect_panels()
        self._connect_session()
        self.destroyed.connect(self.workspace.close)
        self._fill_templates(next(iter(BUILT_IN)))
        self._refresh_images()

    # --- construction -----------------------------------------------------------------------

    def _lay_out(self) -> None:
        notice = QLabel(_NOTICE)
        notice.setStyleSheet("color: #ffb74d;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(notice)
        layout.addWidget(self.question_panel)
        layout.addWidget(self.reasoning_panel, 1)
        layout.addWidget(self.correction_panel)
        layout.addWidget(self.status_panel)
        self.setMinimumWidth(360)

    def _connect_panels(self) -> None:
        controller, view = self.workspace.controller, self.workspace.view
        question, correction = self.question_panel, self.correction_panel
        question.asked.connect(self.ask)
        question.stopped.connect(controller.stop)
        question.template.activated.connect(self._on_template)
        question.preset.activated.connect(self._on_window)
        question.modality.currentIndexChanged.connect(self._show_window)
        correction.drawing.connect(self._start_drawing)
        correction.flipped.connect(view.flip_selected)
        correction.grown.connect(lambda: controller.grow(correction.span()))
        correction.checked.connect(self._check_next)
        correction.undone.connect(controller.undo)
        correction.redone.connect(controller.redo)
        correction.exported.connect(self._export)
        correction.kept.connect(self._keep_for_training)
        self.status_panel.restarted.connect(controller.restart_backend)
        self.status_panel.changing.connect(self._choose_backend)
        self._images.changed.connect(view.choose)
        view.listed.connect(self._refresh_images)
        view.chosen.connect(self._on_chosen)
        view.looked.connect(self._show_window)
        self.workspace.pictured.connect(question.show_picture)

    def _connect_session(self) -> None:
        events = self.workspace.session.events
        events.document.connect(self._show_document)
        events.status.connect(self._show_status)
        events.error.connect(self._show_error)
        events.backend.connect(self._show_backend)
        events.latency_ms.connect(self._show_latency)
        events.engines.connect(self._show_engines)
        for signal in (events.asking, events.segmenting, events.can_undo, events.can_redo):
            signal.connect(self._enable)
        self._enable()
        self._show_error("")

    def changeEvent(self, event: QEvent | None) -> None:
        """Let go of the viewer when napari takes the widget out of its dock."""
        super().changeEvent(event)
        reparented = event is not None and event.type() == QEvent.Type.ParentChange
        if reparented and self.parent() is None:
            self.close_workspace()

    def close_workspace(self) -> None:
        """End the backend and stop listening; harmless the second time."""
        self.workspace.close()

    # --- images -----------------------------------------------------------------------------

    def _refresh_images(self) -> None:
        chosen = self._images.value
        images = self.workspace.view.images()
        samples = [image for image in images if image not in self._begun and notes_of(image)]
        if samples:  # just opened, with a question to be asked
            chosen = samples[-1]
        with self._images.changed.blocked():  # filling the list passes through no choice at all
            self._images.reset_choices()
            if images:
                self._images.value = chosen if chosen in images else images[-1]
        self.workspace.view.choose(self._images.value)

    def _on_chosen(self, image: Image | None) -> None:
        """Follow the choice; a sample brings its question and its slice the first time."""
        self._images.value = image
        notes = None if image is None else notes_of(image)
        self.question_panel.show_notes(notes.volume.warnings if notes else ())
        if image is None:
            return
        if notes is not None and image not in self._begun:
            self._begun.add(image)
            self._begin(image, notes)
        bring_into_view(self._viewer, image)

    def _begin(self, image: Image, notes: LayerNotes) -> None:
        if notes.question:
            self.question_panel.question.setPlainText(notes.question)
        self.question_panel.set_modality(notes.modality)
        if notes.slice_index is not None:
            show_slice(self._viewer, image, SlicePlane(axis=0, index=notes.slice_index))

    # --- the user's actions -----------------------------------------------------------------

    def ask(self) -> None:
        """Ask what is typed about the slice on show."""
        panel = self.question_panel
        template = self._templates[panel.template.currentText()]
        self.workspace.controller.ask(
            panel.question.toPlainText(), panel.chosen_modality(), template
        )

    def _start_drawing(self, what: str) -> None:
        view = self.workspace.view
        if what == "box":
            view.start_box()
        else:
            view.start_points(positive=what == "positive")

    def _check_next(self) -> None:
        """Turn to the doubtful slice after the one on show, or to the first."""
        document, image = self.workspace.session.document, self._images.value
        if document is None or image is None or not document.doubtful:
            return
        try:
            shown = self.workspace.view.shown().plane
        except MedReasonerError:  # no slice on show; any is the next
            shown = None
        here = -1 if shown is None else shown.index
        later = [plane for plane in document.doubtful if plane.index > here]
        show_slice(self._viewer, image, (later or list(document.doubtful))[0])

    def _export(self) -> None:
        target = self.workspace.controller.finding()
        path = None if target is None else ask_path(self, kinds_for(target))
        if path is None:
            return
        naming = Naming()
        if path.suffix.lower() == DICOM_SEG:
            dialog = NamingDialog(self)
            if dialog.exec() != QDialog.DialogCode.Accepted:
                return
            naming = dialog.naming()
        self.workspace.controller.export(path, naming)

    def _keep_for_training(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of training records")
        if folder:
            self.workspace.controller.keep_for_training(Path(folder))

    def _choose_backend(self) -> None:
        dialog = BackendDialog(self._choice, self)
        if dialog.exec() != QDialog.DialogCode.Accepted:
            return
        before, self._choice = self._choice, dialog.choice()
        self.workspace.controller.consent = self._choice.consent
        if replace(self._choice, consent=before.consent) != before:
            self.workspace.controller.use_backend(server_of(self._choice))

    def _on_window(self, _index: int) -> None:
        name = self.question_panel.preset.currentData()
        if name is not None:
            self.workspace.view.set_window(*preset_window(name))

    def _on_template(self, _index: int) -> None:
        combo = self.question_panel.template
        if combo.currentText() != _FROM_FILE:
            return
        self._fill_templates(next(iter(self._templates)))
        name, _ = QFileDialog.getOpenFileName(self, "Prompt template", "", "TOML (*.toml)")
        if name:
            self.workspace.controller.load_template(Path(name), self._add_template)

    def _add_template(self, template: PromptTemplate) -> None:
        self._templates[template.name] = template
        self._fill_templates(template.name)

    def _fill_templates(self, current: str) -> None:
        combo = self.question_panel.template
        combo.clear()
        combo.addItems([*self._templates, _FROM_FILE])
        combo.setCurrentText(current)

    # --- showing the session ----------------------------------------------------------------

    def _show_document(self, document: Document | None, old: Document | None) -> None:
        trace = "" if document is None else document.trace
        if document is not None and document.ending:
            trace = f"{trace}\n[{document.ending}]".lstrip()
        self.reasoning_panel.show_trace(trace)
        self.reasoning_panel.answer.setText("" if document is None else _answer_line(document))
        asked = "" if old is None else old.question
        if document is not None and document.question not in ("", asked):
            self.question_panel.question.setPlainText(document.question)
            self.question_panel.set_modality(document.modality)
        self._enable()

    def _show_window(self, *_: object) -> None:
        """Name the window on show, if it is a preset; they are for Hounsfield units only."""
        panel, image = self.question_panel, self._images.value
        shown = self.workspace.view.window
        named = (name for name in PRESETS if shown and preset_window(name) == shown)
        panel.preset.setCurrentIndex(max(panel.preset.findData(next(named, None)), 0))
        signed = image is not None and np.dtype(image.dtype).kind in "if"
        panel.preset.setEnabled(shown is not None and signed and panel.chosen_modality() == "CT")

    def _show_status(self, status: str) -> None:
        self.status_panel.status.setText(status)

    def _show_error(self, sentence: str) -> None:
        self.status_panel.error.setText(sentence)
        self.status_panel.error.setVisible(bool(sentence))

    def _show_backend(self, state: BackendState) -> None:
        self.status_panel.restart.setVisible(state == "lost")

    def _show_engines(self, engines: str) -> None:
        self.status_panel.engines.setText(engines)

    def _show_latency(self, milliseconds: float | None) -> None:
        text = "" if milliseconds is None else f"{milliseconds:.0f} ms"
        self.status_panel.latency.setText(text)

    def _enable(self, *_: object) -> None:
        session = self.workspace.session
        document = session.document
        panel = self.correction_panel
        self.question_panel.stop.setEnabled(session.asking or session.segmenting)
        panel.undo.setEnabled(session.can_undo)
        panel.redo.setEnabled(session.can_redo)
        for button in (panel.export, panel.keep):
            button.setEnabled(document is not None and not document.mask.is_empty)
        volume = document is not None and len(document.mask.shape) == 3
        panel.grow.setEnabled(volume and _can_grow(document))
        plane = document.plane if document is not None and volume else None
        panel.show_slices(document.mask.shape[plane.axis] if document and plane else 0)
        panel.show_doubtful(len(document.doubtful) if document else 0)


def _can_grow(document: Document | None) -> bool:
    return document is not None and (document.painted is not None or not document.prompts.is_empty)


def _answer_line(document: Document) -> str:
    """Box, points and confidence in a few words."""
    parts = []
    if document.plane is not None:
        parts.append(f"Slice {document.plane.index}")
    if (box := document.prompts.box) is not None:
        parts.append(f"box {box.x1}, {box.y1} to {box.x2}, {box.y2}")
    if points := document.prompts.points:
        negative = sum(not point.positive for point in points)
        of_them = f", {negative} negative" if negative else ""
        parts.append(f"{len(points)} point{'s' * (len(points) > 1)}{of_them}")
    if document.score is not None:
        parts.append(f"score {document.score:.2f}")
    return " · ".join(parts) if parts[document.plane is not None :] else ""
