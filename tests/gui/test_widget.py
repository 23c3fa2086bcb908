"""The docked widget in a real viewer, over a fake backend, and once over a real process."""

import asyncio
import gc
import os
import signal
import threading
import time
import weakref

import nibabel as nib
import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from napari_medreasoner.client.client import Client
from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.core.protocol import ThinkEvent
from napari_medreasoner.gui import samples
from napari_medreasoner.gui.backend import LOST
from napari_medreasoner.gui.panels import QuestionPanel
from napari_medreasoner.gui.widget import MedReasonerWidget
from napari_medreasoner.imaging.samples import sample_cases
from tests.fakes import install
from tests.gui.doubles import ANSWERED, answer_script, filled
from tests.gui.mouse import Mouse

SHAPE = (12, 16)


def add_image(viewer, shape=SHAPE):
    return viewer.add_image(np.arange(np.prod(shape)).reshape(shape).astype(np.uint8), name="im")


def ask(widget, question="where?"):
    widget.question_panel.question.setPlainText(question)
    widget.question_panel.ask.click()


def wait_until_done(qtbot, widget, milliseconds=10_000):
    session = widget.workspace.session
    qtbot.waitUntil(lambda: not session.asking and not session.segmenting, timeout=milliseconds)


def test_a_question_is_asked_answered_corrected_and_undone(docked, viewer, server, qtbot):
    add_image(viewer)
    ask(docked)
    wait_until_done(qtbot, docked)
    assert docked.reasoning_panel.trace.toPlainText() == "I see."
    assert "box 2, 3 to 8, 9" in docked.reasoning_panel.answer.text()
    assert "score 0.90" in docked.reasoning_panel.answer.text()
    assert docked.status_panel.latency.text() == "25 ms"
    assert np.array_equal(viewer.layers["im mask"].data > 0, filled(SHAPE, ANSWERED))

    box = viewer.layers["im box"]
    viewer.layers.selection.active = box
    mouse = Mouse(viewer, box)
    mouse.press(5.5, 3.5)
    seen = []
    for step in range(1, 4):
        mouse.move(5.5, 3.5 + step)
        wait_until_done(qtbot, docked)
        seen.append(np.flatnonzero(viewer.layers["im mask"].data.any(axis=0)).max())
    mouse.release(5.5, 6.5)
    wait_until_done(qtbot, docked)
    assert seen == [8, 9, 10]
    assert len(server.fake.wanted) == 3

    docked.correction_panel.undo.click()
    qtbot.waitUntil(
        lambda: np.array_equal(viewer.layers["im mask"].data > 0, filled(SHAPE, ANSWERED))
    )
    assert box.data[0].max(axis=0).tolist() == [8.5, 7.5]
    docked.correction_panel.redo.click()
    qtbot.waitUntil(lambda: viewer.layers["im mask"].data[:, 10].any())
    assert not docked.correction_panel.redo.isEnabled()


def test_control_z_undoes_whatever_layer_is_active(docked, viewer, qtbot):
    add_image(viewer)
    ask(docked)
    wait_until_done(qtbot, docked)
    handler = viewer.window._qt_viewer.canvas._key_map_handler
    for name in ("im mask", "im box", "im points", "im"):
        viewer.layers.selection.active = viewer.layers[name]
        handler.press_key("Control-Z")
        handler.release_key("Control-Z")
        assert not docked.workspace.session.can_undo, name
        handler.press_key("Control-Shift-Z")
        handler.release_key("Control-Shift-Z")
        assert docked.workspace.session.can_undo, name


def test_a_brush_stroke_outlives_a_late_reply_and_is_undone(docked, viewer, server, qtbot):
    add_image(viewer)
    ask(docked)
    wait_until_done(qtbot, docked)
    server.fake.held = True
    viewer.layers["im points"].selected_data = {0}
    docked.workspace.view.flip_selected()
    qtbot.waitUntil(lambda: bool(server.fake.wanted))
    mask = viewer.layers["im mask"]
    mask.mode, mask.selected_label, mask.brush_size = "paint", 1, 1
    viewer.layers.selection.active = mask
    Mouse(viewer, mask).drag((0, 12), (0, 14))
    docked.workspace._loop._loop.call_soon_threadsafe(server.fake.release)
    qtbot.waitUntil(lambda: docked.workspace.session.document.score is None)
    qtbot.wait(50)
    assert mask.data[0, 13] == 1
    docked.correction_panel.undo.click()
    qtbot.waitUntil(lambda: mask.data[0, 13] == 0)


def test_the_client_is_never_used_on_the_qt_thread(docked, viewer, server, qtbot, monkeypatch):
    threads = set()
    for name in ("ask", "segment"):
        original = getattr(server.fake, name)

        def spy(*args, _original=original, **kwargs):
            threads.add(threading.current_thread())
            return _original(*args, **kwargs)

        monkeypatch.setattr(server.fake, name, spy)
    add_image(viewer)
    ask(docked)
    wait_until_done(qtbot, docked)
    viewer.layers["im points"].selected_data = {0}
    docked.workspace.view.flip_selected()
    wait_until_done(qtbot, docked)
    assert {thread.name for thread in threads} == {"medreasoner"}


def test_without_question_or_image_a_sentence_says_what_to_do(docked, viewer):
    ask(docked)
    assert "no image" in docked.status_panel.error.text()
    add_image(viewer)
    ask(docked, "  ")
    assert "question is empty" in docked.status_panel.error.text()
    assert not docked.status_panel.error.isHidden()


def test_stop_ends_the_stream_and_marks_the_trace(docked, viewer, server, qtbot):
    add_image(viewer)
    server.fake.script = [ThinkEvent(text="<b>half</b>"), asyncio.Event()]
    assert not docked.question_panel.stop.isEnabled()
    ask(docked)
    qtbot.waitUntil(lambda: "half" in docked.reasoning_panel.trace.toPlainText())
    docked.question_panel.stop.click()
    assert docked.reasoning_panel.trace.toPlainText() == "<b>half</b>\n[stopped]"
    assert not docked.question_panel.stop.isEnabled()


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Enter])
def test_control_enter_asks(qtbot, key):
    panel = QuestionPanel(QWidget())
    qtbot.addWidget(panel)
    asked = []
    panel.asked.connect(lambda: asked.append(panel.question.toPlainText()))
    qtbot.keyClicks(panel.question, "where?")
    qtbot.keyClick(panel.question, key, Qt.KeyboardModifier.ControlModifier)
    assert asked == ["where?"]


def test_a_lost_backend_offers_a_restart(docked, viewer, server, qtbot):
    add_image(viewer)
    ask(docked)
    wait_until_done(qtbot, docked)
    docked.workspace._loop._loop.call_soon_threadsafe(server.die)
    qtbot.waitUntil(lambda: docked.status_panel.error.text() == LOST)
    assert not docked.status_panel.restart.isHidden()
    docked.status_panel.restart.click()
    qtbot.waitUntil(lambda: docked.status_panel.restart.isHidden())
    assert docked.status_panel.error.text() == ""
    assert server.starts == 2


def test_each_image_keeps_its_own_trace(docked, viewer, server, qtbot):
    first = add_image(viewer)
    ask(docked)
    wait_until_done(qtbot, docked)
    viewer.add_image(np.zeros((9, 9)), name="other")
    assert docked._images.value is first
    docked._images.value = viewer.layers["other"]
    assert docked.reasoning_panel.trace.toPlainText() == ""
    viewer.layers["im points"].selected_data = {0}
    box = viewer.layers["im box"]
    box.selected_data = {0}
    box.remove_selected()
    assert docked._images.value is first
    assert docked.reasoning_panel.trace.toPlainText() == "I see."
    viewer.layers.remove("im")
    assert docked._images.value is viewer.layers["other"]
    viewer.layers["im box"].add([[1, 1], [1, 5], [5, 5], [5, 1]], shape_type="rectangle")


def test_a_template_file_joins_the_list(docked, tmp_path, qtbot, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text('name = "Mine"\nuser = "$question"')
    combo = docked.question_panel.template
    monkeypatch.setattr(
        "napari_medreasoner.gui.widget.QFileDialog.getOpenFileName", lambda *_: (str(path), "")
    )
    combo.setCurrentText("From file…")
    combo.activated.emit(combo.currentIndex())
    qtbot.waitUntil(lambda: combo.currentText() == "Mine")


def test_a_sample_brings_question_modality_slice_and_exports_on_its_grid(
    docked, viewer, server, qtbot, tmp_path, monkeypatch
):
    add_image(viewer)
    [(data, options, _)] = samples.ct_left_kidney()
    viewer.add_image(data, **options)
    case = next(case for case in sample_cases() if case.id == "ct-left-kidney")
    assert docked.question_panel.question.toPlainText() == case.question
    assert docked.question_panel.chosen_modality() == "CT"
    assert docked.workspace.view.shown().plane == SlicePlane(axis=0, index=case.slice_index)
    server.fake.script = answer_script(data.shape[1:], "I see.")
    docked.question_panel.ask.click()
    wait_until_done(qtbot, docked)
    path = tmp_path / "mask"
    monkeypatch.setattr(
        "napari_medreasoner.gui.export_dialog.QFileDialog.getSaveFileName",
        lambda *_: (str(path), ""),
    )
    docked.correction_panel.export.click()
    qtbot.waitUntil(lambda: docked.status_panel.status.text().startswith("Saved"))
    saved, source = nib.load(f"{path}.nii.gz"), case.load().source
    assert saved.shape == source.shape
    assert np.allclose(saved.affine, source.affine)


def test_the_manifest_and_the_cases_agree():
    manifest = PluginManifest.from_distribution("napari-medreasoner")
    listed = {sample.key: sample for sample in manifest.contributions.sample_data}
    commands = {command.id: command.python_name for command in manifest.contributions.commands}
    assert list(listed) == [case.id for case in sample_cases()]
    for case in sample_cases():
        name = case.id.replace("-", "_")
        assert listed[case.id].display_name == case.title
        assert commands[listed[case.id].command] == f"napari_medreasoner.gui.samples:{name}"
        [(data, options, kind)] = getattr(samples, name)()
        assert kind == "image"
        assert options["name"] == case.title
        assert data.shape == case.load().array.shape


def test_closing_twice_ends_thread_and_server(viewer, server, qtbot):
    widget = MedReasonerWidget(viewer, server)
    viewer.window.add_dock_widget(widget)
    add_image(viewer)
    ask(widget)
    wait_until_done(qtbot, widget)
    thread = widget.workspace._loop._thread
    viewer.window.remove_dock_widget(widget)
    assert not thread.is_alive()
    assert (server.running, server.stops) == (False, 1)
    widget.close_workspace()
    viewer.layers["im points"].add([[1, 1]])
    again = MedReasonerWidget(viewer, server)
    viewer.window.add_dock_widget(again)
    ask(again)
    wait_until_done(qtbot, again)
    assert widget.workspace.session.document is None
    viewer.window.remove_dock_widget(again)


def test_closing_the_viewer_ends_everything(make_napari_viewer, viewer, server, qtbot):
    other = make_napari_viewer()
    widget = MedReasonerWidget(other, server)
    other.window.add_dock_widget(widget)
    workspace = weakref.ref(widget.workspace)
    thread = widget.workspace._loop._thread
    other.close()
    del widget
    qtbot.waitUntil(lambda: not thread.is_alive(), timeout=5000)
    gc.collect()
    assert workspace() is None or workspace()._closed


def test_the_widget_stands_in_the_manifest(viewer, qtbot):
    dock, widget = viewer.window.add_plugin_dock_widget("napari-medreasoner", "MedReasoner")
    assert isinstance(widget, MedReasonerWidget)
    viewer.window.remove_dock_widget(dock)


@pytest.fixture
def fake_engines(tmp_path, monkeypatch):
    for name, value in install(tmp_path / "site").items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("fake_engines")
def test_kill_9_of_a_real_server_mid_stream_and_a_restart(viewer, qtbot, monkeypatch):
    threads = set()
    for name in ("segment", "ask"):
        original = getattr(Client, name)

        def spy(*args, _original=original, **kwargs):
            threads.add(threading.current_thread().name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(Client, name, spy)
    server = LocalServer("fake", "fake")
    widget = MedReasonerWidget(viewer, server)
    viewer.window.add_dock_widget(widget)
    viewer.add_image(np.arange(600).reshape(20, 30).astype(np.uint8), name="im")
    ask(widget)
    qtbot.waitUntil(lambda: "im mask" in viewer.layers, timeout=20_000)
    wait_until_done(qtbot, widget)
    mask = viewer.layers["im mask"].data.copy()
    ask(widget, "slow 500")
    trace = widget.reasoning_panel.trace
    qtbot.waitUntil(lambda: "word 2" in trace.toPlainText(), timeout=10_000)
    os.kill(server.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: widget.status_panel.error.text() == LOST, timeout=5000)
    qtbot.waitUntil(lambda: trace.toPlainText().endswith("[interrupted]"), timeout=5000)
    assert "word 2" in trace.toPlainText()
    assert np.array_equal(viewer.layers["im mask"].data, mask)

    viewer.layers["im points"].selected_data = {0}
    viewer.layers["im points"].remove_selected()
    assert widget.workspace.session.document.stale
    widget.status_panel.restart.click()
    qtbot.waitUntil(lambda: not widget.workspace.session.document.stale, timeout=20_000)
    assert widget.status_panel.error.text() == ""
    assert threads == {"medreasoner"}
    start = time.monotonic()
    viewer.window.remove_dock_widget(widget)
    assert time.monotonic() - start < 3
    assert not server.running
