"""What a real backend with the shipped engines makes of bad input, seen in the real widget."""

import numpy as np
import pytest

from napari_medreasoner.client.client import Client
from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.gui.widget import MedReasonerWidget
from napari_medreasoner.imaging.samples import sample_cases

QUESTION = "Which organ makes bile?"


@pytest.fixture
def widget(viewer):
    docked = MedReasonerWidget(viewer, LocalServer())
    viewer.window.add_dock_widget(docked)
    yield docked
    docked.close_workspace()


def ask(widget, qtbot, question=QUESTION):
    """Ask and wait; return the error line."""
    widget.question_panel.question.setPlainText(question)
    widget.question_panel.ask.click()
    session = widget.workspace.session
    qtbot.waitUntil(lambda: not session.asking and not session.segmenting, timeout=20_000)
    return widget.status_panel.error.text()


def test_odd_images_end_in_a_mask_or_one_sentence(widget, viewer, qtbot):
    some_nan = np.full((40, 50), np.nan, np.float32)
    some_nan[10:30, 10:40] = 7
    answered = {"some NaN": some_nan, "1 x 1": np.ones((1, 1), np.uint8), "flat": np.ones((30, 30))}
    for name, data in answered.items():
        viewer.add_image(data, name=name)
        widget._images.value = viewer.layers[name]
        assert ask(widget, qtbot) == "", name
        assert viewer.layers[f"{name} mask"].data.any(), name
    viewer.add_image(np.full((9, 9), np.nan, np.float32), name="all NaN", contrast_limits=(0, 1))
    widget._images.value = viewer.layers["all NaN"]
    sentence = ask(widget, qtbot)
    assert "no finite value" in sentence
    assert "all NaN mask" not in viewer.layers
    # The plugin goes on with the next image as if nothing had happened.
    widget._images.value = viewer.layers["flat"]
    assert ask(widget, qtbot) == ""


def test_a_question_about_something_else_is_refused_and_the_mask_stays(widget, viewer, qtbot):
    (liver,) = (case for case in sample_cases() if case.id == "ct-liver")
    viewer.add_image(liver.load().array, name="im")
    assert ask(widget, qtbot) == ""
    mask = viewer.layers["im mask"].data.copy()
    assert "not a question about a structure" in ask(widget, qtbot, "Who won the cup final?")
    assert np.array_equal(viewer.layers["im mask"].data, mask)


def test_a_wrong_token_is_said(viewer, qtbot, monkeypatch):
    server = LocalServer()
    monkeypatch.setattr(server, "client", lambda: Client(server._url, "not the server's token"))
    docked = MedReasonerWidget(viewer, server)
    viewer.window.add_dock_widget(docked)
    viewer.add_image(np.ones((30, 30)), name="im")
    assert "token is missing or wrong" in ask(docked, qtbot)
    docked.close_workspace()
