"""Choosing what answers: engines on this machine, or a server on another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QWidget,
)

from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.remote import RemoteServer
from napari_medreasoner.core.defaults import ASM, CRM
from napari_medreasoner.gui.backend import Server

__all__ = ["BackendChoice", "BackendDialog", "server_of"]

_HERE: Final = "This machine"
_ELSEWHERE: Final = "A server that runs already"
_CONSENT: Final = (
    "Pictures may leave the backend's machine, where its reasoner runs elsewhere. Until napari is "
    "closed."
)


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """What was chosen last; the token is never written anywhere.

    Attributes
    ----------
    address : str
        Of a server that runs already; empty starts one on this machine.
    token : str
        Of that server.
    reasoner, segmenter : str
        Names or folders, for a server on this machine.
    device : str
        As `medreasoner serve --device` takes it.
    consent : bool
        Pictures may be sent to models on other machines.
    """

    address: str = ""
    token: str = ""
    reasoner: str = CRM
    segmenter: str = ASM
    device: str = "auto"
    consent: bool = False


def server_of(choice: BackendChoice) -> Server:
    """Make the server that was chosen; it is not started yet."""
    if choice.address:
        return RemoteServer(choice.address, choice.token)
    return LocalServer(choice.reasoner, choice.segmenter, ("--device", choice.device))


class BackendDialog(QDialog):
    """Asks for a `BackendChoice`.

    Parameters
    ----------
    choice : BackendChoice
        Shown at first.
    parent : QWidget, optional
        What the dialog stands over.
    """

    def __init__(self, choice: BackendChoice, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Backend")
        self.place = QComboBox()
        self.place.addItems([_HERE, _ELSEWHERE])
        self.reasoner = QLineEdit(choice.reasoner)
        self.segmenter = QLineEdit(choice.segmenter)
        for line in (self.reasoner, self.segmenter):
            line.setToolTip("A name that `medreasoner models list` gives, or a model's folder.")
        self.device = QComboBox()
        self.device.setEditable(True)
        self.device.addItems(["auto", "cpu", "cuda"])
        self.device.setCurrentText(choice.device)
        self.address = QLineEdit(choice.address)
        self.address.setPlaceholderText("https://gpu.example:8765, or http://127.0.0.1:8765")
        self.token = QLineEdit(choice.token)
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.consent = QCheckBox(_CONSENT)
        self.consent.setChecked(choice.consent)
        self._lay_out()
        self.place.currentTextChanged.connect(lambda _: self._enable())
        self.place.setCurrentText(_ELSEWHERE if choice.address else _HERE)
        self._enable()

    def _lay_out(self) -> None:
        both = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(both.Ok | both.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        form = QFormLayout(self)
        form.addRow("Where", self.place)
        form.addRow("Reasoner", self.reasoner)
        form.addRow("Segmenter", self.segmenter)
        form.addRow("Device", self.device)
        form.addRow("Address", self.address)
        form.addRow("Token", self.token)
        form.addRow(QLabel("The images you ask about are sent to the backend you choose."))
        form.addRow(self.consent)
        form.addRow(buttons)

    def _enable(self) -> None:
        here = self.place.currentText() == _HERE
        for field in (self.reasoner, self.segmenter, self.device):
            field.setEnabled(here)
        for field in (self.address, self.token):
            field.setEnabled(not here)

    def choice(self) -> BackendChoice:
        """Return what was chosen."""
        here = self.place.currentText() == _HERE
        return BackendChoice(
            address="" if here else self.address.text().strip(),
            token="" if here else self.token.text().strip(),
            reasoner=self.reasoner.text().strip() or BackendChoice().reasoner,
            segmenter=self.segmenter.text().strip() or BackendChoice().segmenter,
            device=self.device.currentText().strip() or BackendChoice().device,
            consent=self.consent.isChecked(),
        )
