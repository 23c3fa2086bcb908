"""The dialog that chooses the backend, over a real Qt."""

from qtpy.QtWidgets import QDialog

from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.remote import RemoteServer
from napari_medreasoner.gui import widget as module
from napari_medreasoner.gui.backend_dialog import BackendChoice, BackendDialog, server_of


def test_the_dialog_gives_back_what_it_was_given(qtbot):
    for choice in (
        BackendChoice(),
        BackendChoice(reasoner="lingshu-7b", segmenter="medsam2", device="cuda:1", consent=True),
        BackendChoice(address="https://gpu.example:8765", token="secret-token-of-16"),
    ):
        dialog = BackendDialog(choice)
        qtbot.addWidget(dialog)
        assert dialog.choice() == choice
        assert dialog.address.isEnabled() == bool(choice.address)
        assert dialog.reasoner.isEnabled() != bool(choice.address)


def test_a_choice_makes_its_server():
    assert isinstance(server_of(BackendChoice()), LocalServer)
    assert isinstance(server_of(BackendChoice(address="http://127.0.0.1:1")), RemoteServer)


def test_the_plugin_turns_to_what_was_chosen(docked, server, qtbot, monkeypatch):
    other = type(server)()
    monkeypatch.setattr(module, "server_of", lambda choice: other)
    monkeypatch.setattr(BackendDialog, "exec", lambda self: QDialog.DialogCode.Accepted)
    monkeypatch.setattr(BackendDialog, "choice", lambda self: BackendChoice("http://x", "t" * 16))
    docked.status_panel.change.click()
    qtbot.waitUntil(lambda: docked.status_panel.engines.text() == "seer + cutter · cpu")
    assert other.running
