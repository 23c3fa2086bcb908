import os
import sys

import pytest
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication

from napari_medreasoner.gui.widget import MedReasonerWidget
from napari_medreasoner.imaging.sandbox.spare import SPARE
from tests.gui.doubles import FakeServer

SCREEN = sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
NO_SCREEN = pytest.mark.skip(reason="there is no display with OpenGL: run under xvfb-run")


def pytest_collection_modifyitems(items):
    """Without a display Qt would end the whole process, so those tests are skipped."""
    shown = SCREEN and os.environ.get("QT_QPA_PLATFORM") != "offscreen"
    for item in items:
        if not shown and {"qapp", "make_napari_viewer"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(NO_SCREEN)


@pytest.fixture
def viewer(make_napari_viewer):
    """A real napari viewer."""
    return make_napari_viewer()


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def docked(viewer, server):
    """The widget, docked in the viewer, with a backend that is a fake."""
    widget = MedReasonerWidget(viewer, server)
    viewer.window.add_dock_widget(widget, name="MedReasoner")
    yield widget
    widget.close_workspace()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert SPARE.take() is None  # the reader's child ends with the plugin
