"""The parts of the widget: question, reasoning, corrections, status. They hold no logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QFontMetrics, QKeyEvent, QTextCursor
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_medreasoner.core.protocol import MODALITIES
from napari_medreasoner.gui.pixmaps import pixmap_of
from napari_medreasoner.gui.preview import SIDE
from napari_medreasoner.imaging.window import PRESETS

__all__ = ["AS_SHOWN", "CorrectionPanel", "QuestionPanel", "ReasoningPanel", "StatusPanel"]

_UNKNOWN: Final = "Unknown"
AS_SHOWN: Final = "As shown"
"""Entry of the list of windows: whatever the layer's contrast limits are."""


def _button(text: str, tip: str, clicked: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(lambda: clicked())
    return button


class _QuestionEdit(QPlainTextEdit):
    """Plain text of about four lines; Ctrl+Enter submits."""

    submitted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setPlaceholderText("What could explain …? (Ctrl+Enter asks)")
        self.setTabChangesFocus(True)
        self.setFixedHeight(QFontMetrics(self.font()).lineSpacing() * 4 + 16)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Submit on Ctrl+Enter, type otherwise."""
        enter = event is not None and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if event and enter and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.submitted.emit()
        else:
            super().keyPressEvent(event)


class QuestionPanel(QGroupBox):
    """What the model sees, image, modality, window, template, question; ask and stop.

    Parameters
    ----------
    images : QWidget
        The combo box of image layers.
    """

    asked = Signal()
    stopped = Signal()

    def __init__(self, images: QWidget) -> None:
        super().__init__("Question")
        self.picture = _picture()
        self.modality = QComboBox()
        self.modality.addItems([_UNKNOWN, *MODALITIES])
        self.preset = QComboBox()
        self.preset.setToolTip("Grey window of a CT in Hounsfield units.")
        self.preset.addItem(AS_SHOWN)
        for name in PRESETS:
            self.preset.addItem(name.capitalize(), name)
        self.template = QComboBox()
        self.template.setToolTip("What the model is told around your question.")
        self.note = _line()
        self.note.setStyleSheet("color: #ffb74d;")
        self.note.hide()
        self.question = _QuestionEdit()
        self.question.submitted.connect(self.asked)
        self.ask = _button("Ask", "Ask about the slice on show (Ctrl+Enter).", self.asked.emit)
        self.ask.setStyleSheet("QPushButton:enabled { background-color: #3d6bd6; color: white; }")
        self.stop = _button("Stop", "Stop at once; what has arrived stays.", self.stopped.emit)
        self._lay_out(images)

    def _lay_out(self, images: QWidget) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Modality", self.modality)
        form.addRow("Window", self.preset)
        form.addRow("Template", self.template)
        image = QHBoxLayout()
        image.addWidget(QLabel("Image"))
        image.addWidget(images, 1)
        top = QHBoxLayout()
        top.addWidget(self.picture)
        top.addLayout(form, 1)
        row = QHBoxLayout()
        row.addWidget(self.ask, 2)
        row.addWidget(self.stop, 1)
        layout = QVBoxLayout(self)
        layout.addLayout(image)
        layout.addLayout(top)
        layout.addWidget(self.note)
        layout.addWidget(self.question)
        layout.addLayout(row)

    def show_picture(self, picture: NDArray[np.uint8] | None) -> None:
        """Show what the model sees; None shows that it sees nothing."""
        if picture is None:
            self.picture.clear()
        else:
            self.picture.setPixmap(pixmap_of(picture, SIDE))

    def show_notes(self, notes: Sequence[str]) -> None:
        """Show the first thing to know about the image; all of them where the mouse rests."""
        more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
        self.note.setText(f"{notes[0]}{more}" if notes else "")
        self.note.setToolTip("\n".join(notes))
        self.note.setVisible(bool(notes))

    def chosen_modality(self) -> str:
        """Return the modality; empty when not known."""
        name = str(self.modality.currentText())
        return "" if name == _UNKNOWN else name

    def set_modality(self, name: str) -> None:
        """Choose a modality; one that is not listed counts as not known."""
        self.modality.setCurrentIndex(max(self.modality.findText(name or _UNKNOWN), 0))


class ReasoningPanel(QGroupBox):
    """The trace, as plain text however it is written, and the answer in one line."""

    def __init__(self) -> None:
        super().__init__("Reasoning")
        self.trace = QPlainTextEdit()
        self.trace.setReadOnly(True)
        self.trace.setPlaceholderText("The model's reasoning appears here as it is written.")
        self.trace.setMinimumHeight(110)
        self.answer = QLabel()
        self.answer.setWordWrap(True)
        self.answer.setTextFormat(Qt.TextFormat.PlainText)
        layout = QVBoxLayout(self)
        layout.addWidget(self.trace, 1)
        layout.addWidget(self.answer)

    def show_trace(self, text: str) -> None:
        """Show a trace; only what is new is written, so that the reader keeps the place."""
        shown = self.trace.toPlainText()
        if not text.startswith(shown):
            self.trace.setPlainText(text)
            return
        at_end = self._is_at_end()
        cursor = QTextCursor(self.trace.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.insertText(text[len(shown) :])
        if at_end:
            self.trace.moveCursor(QTextCursor.MoveOperation.End)

    def _is_at_end(self) -> bool:
        bar = self.trace.verticalScrollBar()
        return bar is None or bar.value() == bar.maximum()


class CorrectionPanel(QGroupBox):
    """Buttons that start an edit on the layers, and what is done with the result."""

    drawing = Signal(str)
    """"box", "positive" or "negative"."""
    flipped = Signal()
    grown = Signal()
    checked = Signal()
    undone = Signal()
    redone = Signal()
    exported = Signal()
    kept = Signal()

    def __init__(self) -> None:
        super().__init__("Correct")
        layout = QGridLayout(self)
        modes = (
            ("▭ Box", "box", "Draw a box; it replaces the one that is there."),
            ("+ Point", "positive", "Click on the target."),
            ("- Point", "negative", "Click on what is not the target."),
        )
        for column, (text, name, tip) in enumerate(modes):
            button = _button(text, tip, lambda name=name: self.drawing.emit(name))  # type: ignore[misc]
            layout.addWidget(button, 0, column)
        flip = _button(
            "± Flip", "Turn selected points from + to - and back (T).", self.flipped.emit
        )
        layout.addWidget(flip, 0, 3)
        self.grow = _button(
            "Grow through volume",
            "Follow the structure from the slice you worked on last through the slices below.",
            self.grown.emit,
        )
        self.first, self.last = QSpinBox(), QSpinBox()
        for box, word in ((self.first, "from "), (self.last, "to ")):
            box.setPrefix(word)
            box.setToolTip("Slices that growth may change.")
        self.check = _button(
            "Check next", "Turn to the next slice the segmenter was unsure of.", self.checked.emit
        )
        self._slices = 0
        self.export = _button(
            "Export…", "Save mask, picture or report of the finding.", self.exported.emit
        )
        self.keep = _button(
            "Train…",
            "Add picture, question, reasoning and mask to a folder of training records.",
            self.kept.emit,
        )
        self.undo = _button("↶ Undo", "Take back the last action (Ctrl+Z).", self.undone.emit)
        self.redo = _button("↷ Redo", "Do it again (Ctrl+Shift+Z).", self.redone.emit)
        layout.addWidget(self.undo, 1, 0, 1, 2)
        layout.addWidget(self.redo, 1, 2, 1, 2)
        layout.addWidget(self.grow, 2, 0, 1, 2)
        layout.addWidget(self.export, 2, 2)
        layout.addWidget(self.keep, 2, 3)
        layout.addWidget(self.first, 3, 0)
        layout.addWidget(self.last, 3, 1)
        layout.addWidget(self.check, 3, 2, 1, 2)
        self.show_slices(0)
        self.show_doubtful(0)

    def show_slices(self, count: int) -> None:
        """Let the range of growth be chosen among so many slices; all of them at first."""
        if count == self._slices:
            return
        self._slices = count
        for box, value in ((self.first, 0), (self.last, count - 1)):
            box.setRange(0, max(count - 1, 0))
            box.setValue(value)
            box.setVisible(count > 0)

    def show_doubtful(self, count: int) -> None:
        """Offer the slices to check, if there are any."""
        self.check.setText(f"Check next ({count})")
        self.check.setVisible(count > 0)

    def span(self) -> range:
        """Slices that growth may change, whichever end was typed where."""
        ends = sorted((self.first.value(), self.last.value()))
        return range(ends[0], ends[1] + 1)


class StatusPanel(QWidget):
    """What is going on, what went wrong, and the way to restart the backend."""

    restarted = Signal()
    changing = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.status = _line()
        self.engines = _line()
        self.engines.setStyleSheet("color: gray;")
        self.change = _button("Backend…", "Choose models and where they run.", self.changing.emit)
        self.latency = _line()
        self.latency.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.error = _line()
        self.error.setStyleSheet("color: #ff8a65;")
        self.restart = _button("Restart backend", "Start it again and go on.", self.restarted.emit)
        self.restart.hide()
        row = QHBoxLayout()
        row.addWidget(self.status, 1)
        row.addWidget(self.latency)
        of_backend = QHBoxLayout()
        of_backend.addWidget(self.engines, 1)
        of_backend.addWidget(self.change)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 0)
        layout.addWidget(self.error)
        layout.addWidget(self.restart)
        layout.addLayout(row)
        layout.addLayout(of_backend)


def _picture() -> QLabel:
    label = QLabel()
    label.setFixedSize(SIDE, SIDE)
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    label.setStyleSheet("background-color: black;")
    label.setToolTip("What the model sees: this slice, through this window.")
    return label


def _line() -> QLabel:
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
    return label
