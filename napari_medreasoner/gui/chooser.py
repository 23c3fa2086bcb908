"""The dialog that asks which of several images in a file or folder to open, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_medreasoner.gui.pixmaps import icon_of
from napari_medreasoner.gui.waiting import Abandoned
from napari_medreasoner.imaging.readers.parts import Part

__all__ = ["Choice", "PartChooser", "choose_parts"]

_THUMBNAIL: Final = 72
_SIZE: Final = (560, 460)


class Choice(NamedTuple):
    """What to read of a path: a part of it, or one slice of that, both from 1.

    Without a part it is the one image that is there.
    """

    part: int | None = None
    single: int | None = None


@dataclass
class _Slices:
    """How one part is to be opened: whole, or these of its slices (from 1, both included)."""

    separate: bool
    first: int
    last: int

    @classmethod
    def of(cls, part: Part) -> _Slices:
        middle = part.slices // 2 + 1  # as in the thumbnail
        return cls(bool(part.problem), middle, middle)

    def choices(self, number: int) -> list[Choice]:
        if not self.separate:
            return [Choice(number)]
        return [Choice(number, single) for single in range(self.first, self.last + 1)]


def choose_parts(
    parts: Sequence[Part], name: str, window: QWidget, *, by_slice: bool
) -> tuple[Choice, ...]:
    """Ask the user; returns at least one choice.

    Parameters
    ----------
    parts : sequence of Part
        What there is.
    name : str
        Of the file or folder.
    window : QWidget
        What the dialog stands over.
    by_slice : bool
        Whether slices can be opened one by one, as those of DICOM can.

    Raises
    ------
    Abandoned
        When the user cancelled.
    """
    chooser = PartChooser(parts, name, window, by_slice=by_slice)
    accepted = chooser.exec() == QDialog.DialogCode.Accepted
    chosen = chooser.choices()
    chooser.deleteLater()
    if not accepted or not chosen:
        raise Abandoned
    return chosen


class PartChooser(QDialog):
    """A list of images with their pictures; below it, how to open the one under the cursor.

    Parameters
    ----------
    parts, name, window, by_slice
        As of `choose_parts`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        name: str,
        window: QWidget | None = None,
        *,
        by_slice: bool = True,
    ) -> None:
        super().__init__(window)
        self._by_slice = by_slice
        self.setWindowTitle("Open image")
        self.resize(*_SIZE)
        self._parts = tuple(parts)
        self._slices = [_Slices.of(part) for part in parts]
        self.list = QListWidget()
        self.separate = QCheckBox("Open as separate slices")
        self.first, self.last = QSpinBox(), QSpinBox()
        self.problem = QLabel()
        self.problem.setWordWrap(True)
        self.problem.setTextFormat(Qt.TextFormat.PlainText)
        self.problem.setStyleSheet("color: #ff8a65;")
        both = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(both.Open | both.Cancel)
        self._lay_out(name)
        self._fill()
        self._connect()
        self.list.setCurrentRow(0)

    def _lay_out(self, name: str) -> None:
        images = "image" if len(self._parts) == 1 else f"{len(self._parts)} images"
        heading = QLabel(f"{name} holds {images}." if len(self._parts) > 1 else name)
        heading.setTextFormat(Qt.TextFormat.PlainText)
        heading.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.separate)
        row.addStretch(1)
        row.addWidget(QLabel("from"))
        row.addWidget(self.first)
        row.addWidget(QLabel("to"))
        row.addWidget(self.last)
        layout = QVBoxLayout(self)
        layout.addWidget(heading)
        layout.addWidget(self.list, 1)
        layout.addWidget(self.problem)
        layout.addLayout(row)
        layout.addWidget(self.buttons)

    def _fill(self) -> None:
        self.list.setIconSize(QSize(_THUMBNAIL, _THUMBNAIL))
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.list.setWordWrap(True)
        for part in self._parts:
            item = QListWidgetItem(_summary(part))
            item.setIcon(icon_of(part.thumbnail, _THUMBNAIL))
            self.list.addItem(item)

    def _connect(self) -> None:
        self.list.currentRowChanged.connect(self._show)
        self.list.itemSelectionChanged.connect(self._enable)
        self.list.itemDoubleClicked.connect(lambda _: self.accept())
        self.separate.toggled.connect(self._on_separate)
        self.first.valueChanged.connect(self._on_first)
        self.last.valueChanged.connect(self._on_last)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)

    def choices(self) -> tuple[Choice, ...]:
        """Return what is selected, in the order of the list."""
        rows = sorted(index.row() for index in self.list.selectedIndexes())
        return tuple(
            choice for row in rows for choice in self._slices[row].choices(self._parts[row].number)
        )

    def _show(self, row: int) -> None:
        """Show how the image under the cursor is to be opened."""
        part, slices = self._parts[row], self._slices[row]
        first, last = slices.first, slices.last
        for box in (self.first, self.last):
            box.setRange(1, max(part.slices, 1))
        self.first.setValue(first)
        self.last.setValue(last)
        self.separate.setEnabled(self._by_slice and not part.problem and part.slices > 1)
        self.separate.setChecked(slices.separate)
        self.problem.setText(part.problem)
        self.problem.setVisible(bool(part.problem))
        self._enable()

    def _enable(self) -> None:
        for box in (self.first, self.last):
            box.setEnabled(self.separate.isChecked())
        button = self.buttons.button(QDialogButtonBox.StandardButton.Open)
        if button is not None:
            button.setEnabled(bool(self.list.selectedIndexes()))

    def _current(self) -> _Slices:
        return self._slices[max(self.list.currentRow(), 0)]

    def _on_separate(self, separate: bool) -> None:
        self._current().separate = separate
        self._enable()

    def _on_first(self, number: int) -> None:
        self._current().first = number
        self.last.setValue(max(self.last.value(), number))

    def _on_last(self, number: int) -> None:
        self._current().last = number
        self.first.setValue(min(self.first.value(), number))


def _summary(part: Part) -> str:
    """Description, kind and size in two lines; a third says what is wrong."""
    slices = f"{part.slices} slice{'s' * (part.slices != 1)}"
    facts = " · ".join(filter(None, (part.modality, slices)))
    title = part.description or f"Image {part.number}"
    return f"{title}\n{facts}" + ("\n⚠ makes no volume" if part.problem else "")
