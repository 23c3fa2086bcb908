"""Asking where a finding goes, and for a DICOM segmentation what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QWidget,
)

from napari_medreasoner.gui.exporting import Naming
from napari_medreasoner.imaging.writers.terms import TERMS

__all__ = ["NamingDialog", "ask_path"]

_LABEL_LENGTH: Final = 64
"""Longest SegmentLabel: value representation LO (DICOM PS3.5 section 6.2)."""


def ask_path(parent: QWidget | None, kinds: dict[str, tuple[str, ...]]) -> Path | None:
    """Ask where to save; None when the user cancelled.

    Parameters
    ----------
    parent : QWidget
        What the dialog stands over.
    kinds : dict
        Filters, and the suffixes of each. A name without a suffix of any kind takes the first
        one of the filter that was chosen.
    """
    first = next(iter(kinds.values()))
    name, chosen = QFileDialog.getSaveFileName(parent, "Export", "finding", ";;".join(kinds))
    if not name:
        return None
    if name.lower().endswith(tuple(suffix for suffixes in kinds.values() for suffix in suffixes)):
        return Path(name)
    path = Path(f"{name}{kinds.get(chosen, first)[0]}")
    return path if _may_replace(parent, path) else None


def _may_replace(parent: QWidget | None, path: Path) -> bool:
    """Ask again where there is such a file: the file dialog knew the name without its suffix."""
    question = f"{path.name} is there already. Replace it?"
    return (
        not path.exists()
        or QMessageBox.question(parent, "Export", question) == QMessageBox.StandardButton.Yes
    )


class NamingDialog(QDialog):
    """Label and coded term of a DICOM segment."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("DICOM segmentation")
        self.label = QLineEdit(Naming().label)
        self.label.setMaxLength(_LABEL_LENGTH)
        self.term = QComboBox()
        self.term.addItems(list(TERMS))
        self.term.setCurrentText("tissue")
        both = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(both.Ok | both.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        form = QFormLayout(self)
        form.addRow(QLabel("How the finding is called in the file:"))
        form.addRow("Label", self.label)
        form.addRow("What it is", self.term)
        form.addRow(buttons)

    def naming(self) -> Naming:
        """Return what was chosen."""
        return Naming(self.label.text().strip() or Naming().label, TERMS[self.term.currentText()])
