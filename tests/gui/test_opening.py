"""Opening files as the user does: in a window, with dialogs that are really there."""

import threading

import nibabel as nib
import numpy as np
import pytest
from napari.utils.notifications import NotificationSeverity, notification_manager
from qtpy.QtCore import QItemSelectionModel, Qt, QTimer
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QMainWindow, QProgressDialog, QPushButton

from napari_medreasoner.gui import reader
from napari_medreasoner.gui.chooser import Choice, PartChooser
from napari_medreasoner.gui.waiting import Abandoned, main_window, wait_for
from napari_medreasoner.imaging import Part
from tests.imaging.dicom_series import COUNT, SPACING, STEP, series, stored_slice

PLUGIN = "napari-medreasoner"


@pytest.fixture
def window(make_napari_viewer):
    """A viewer whose window is on the screen."""
    return make_napari_viewer(show=True)


@pytest.fixture
def plain_window(qtbot):
    """Any main window on the screen."""
    window = QMainWindow()
    qtbot.addWidget(window)
    window.show()
    return window


@pytest.fixture
def told():
    """What napari notified of since the test began."""
    first = len(notification_manager.records)
    return lambda: [
        (record.severity, record.message) for record in notification_manager.records[first:]
    ]


@pytest.fixture
def study(tmp_path):
    """A folder of two series that make volumes and one that does not."""
    folder = tmp_path / "study"
    series(folder, SeriesDescription="Thorax")
    series(folder / "b", SeriesInstanceUID="1.9", SeriesDescription="Abdomen")
    gap = [0, STEP, 3 * STEP, 4 * STEP]
    series(folder / "c", offsets=gap, SeriesInstanceUID="1.10", SeriesDescription="Gap")
    return folder


class Finger:
    """Waits for a dialog of a kind to open, and does something with it, once."""

    kept = None  # a timer that nobody holds never rings

    def __init__(self, kind, act):
        Finger.kept = self
        self.kind, self.act, self.seen = kind, act, []
        self.timer = QTimer()
        self.timer.timeout.connect(self._look)
        self.timer.start(20)

    def _look(self):
        for widget in QApplication.topLevelWidgets():
            if isinstance(widget, self.kind) and widget.isVisible() and not self.seen:
                self.timer.stop()
                self.seen.append(widget)
                try:
                    self.act(widget)
                except BaseException:
                    widget.close()  # or the test would wait for ever
                    raise


def press_cancel(dialog):
    dialog.findChild(QPushButton).click()


def choose(rows, act=lambda dialog: None, button=QDialogButtonBox.StandardButton.Open):
    """A finger that selects rows of the chooser, does something, and presses a button."""

    def press(dialog):
        dialog.list.clearSelection()
        for row in rows:
            dialog.list.setCurrentRow(row, QItemSelectionModel.SelectionFlag.Select)
        act(dialog)
        dialog.buttons.button(button).click()

    return Finger(PartChooser, press)


def open_path(window, path):
    return window.open(str(path), plugin=PLUGIN)


def values(layer):
    return sorted(np.unique(layer.data).tolist())


def test_the_window_lives_while_work_goes_on_and_its_result_comes_back(plain_window):
    beats, gate = [], threading.Event()
    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(1) or len(beats) < 5 or gate.set())
    timer.start(10)

    def work():
        gate.wait(20)
        return threading.current_thread()

    assert wait_for(work, "Working…", plain_window) is not threading.main_thread()
    assert len(beats) >= 5


def test_what_work_raises_is_raised(plain_window):
    def work():
        raise KeyError("x")

    with pytest.raises(KeyError):
        wait_for(work, "Working…", plain_window)
    assert wait_for(threading.current_thread, "", None) is threading.main_thread()


def test_cancel_abandons_the_work_and_drops_its_result(plain_window):
    gate, ended = threading.Event(), threading.Event()

    def work():
        gate.wait(20)
        ended.set()

    modal = []

    def cancel(dialog):
        modal.append(dialog.windowModality() == Qt.WindowModality.ApplicationModal)
        press_cancel(dialog)

    finger = Finger(QProgressDialog, cancel)
    with pytest.raises(Abandoned):
        wait_for(work, "Working…", plain_window)
    assert (modal, ended.is_set(), len(finger.seen)) == ([True], False, 1)
    gate.set()
    assert ended.wait(20)
    QApplication.processEvents()


def test_a_file_opens_beside_the_qt_thread(window, tmp_path, monkeypatch):
    threads = []
    original = reader.read_sandboxed

    def spy(*args, **kwargs):
        threads.append(threading.current_thread())
        return original(*args, **kwargs)

    monkeypatch.setattr(reader, "read_sandboxed", spy)
    path = tmp_path / "im.nii"
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4)), path)
    (layer,) = open_path(window, path)
    assert values(layer) == list(range(60))
    assert threading.main_thread() not in threads


def test_cancelling_a_read_adds_no_layer_and_says_nothing(window, tmp_path, monkeypatch, told):
    gate = threading.Event()
    original = reader.read_sandboxed

    def slow(*args, **kwargs):
        gate.wait(20)
        return original(*args, **kwargs)

    monkeypatch.setattr(reader, "read_sandboxed", slow)
    path = tmp_path / "im.nii"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4)), path)
    finger = Finger(QProgressDialog, press_cancel)
    assert open_path(window, path) == []
    gate.set()
    assert finger.seen
    assert len(window.layers) == 0
    assert told() == []


def test_chosen_series_open_each_as_a_volume(window, study):
    texts = []

    def act(dialog):
        texts.extend(dialog.list.item(row).text() for row in range(dialog.list.count()))

    choose([0, 1], act)
    layers = open_path(window, study)
    assert "Thorax\nCT · 4 slices" in texts
    assert sum("makes no volume" in text for text in texts) == 1
    assert [layer.data.shape[0] for layer in layers] == [COUNT, COUNT]
    assert np.allclose(layers[0].scale, (STEP, *SPACING))


def test_an_irregular_series_opens_as_separate_slices(window, study):
    def act(dialog):
        assert "missing" in dialog.problem.text()
        assert not dialog.separate.isEnabled()
        assert (dialog.first.value(), dialog.last.value()) == (3, 3)
        dialog.first.setValue(2)

    choose([2], act)
    layers = open_path(window, study)
    assert [layer.data.ndim for layer in layers] == [2, 2]
    assert values(layers[0]) == sorted(stored_slice(1).ravel().tolist())
    assert values(layers[1]) == sorted(stored_slice(2).ravel().tolist())


def test_one_irregular_series_gets_the_same_dialog_and_a_regular_one_its_slices(
    window, study, told
):
    choose([0])
    (layer,) = open_path(window, study / "c")
    assert values(layer) == sorted(stored_slice(2).ravel().tolist())
    choose([0], lambda dialog: dialog.separate.setChecked(True))
    (layer,) = open_path(window, study)
    assert layer.data.ndim == 2
    before = told()
    choose([0], button=QDialogButtonBox.StandardButton.Cancel)
    assert open_path(window, study) == []
    assert told() == before


def test_volumes_of_a_4d_nifti_are_offered(window, tmp_path):
    path = tmp_path / "four.nii.gz"
    data = np.arange(180, dtype=np.int16).reshape(4, 5, 3, 3)
    nib.save(nib.Nifti1Image(data, np.diag([-1, -1, 1, 1])), path)

    def act(dialog):
        assert not dialog.separate.isEnabled()

    choose([1, 2], act)
    layers = open_path(window, path)
    for layer, number in zip(layers, (1, 2), strict=True):
        assert np.array_equal(layer.data, data[..., number].transpose(2, 1, 0))


def test_a_damaged_file_is_one_sentence_and_the_others_open(window, tmp_path, told):
    good, bad = tmp_path / "good.nii", tmp_path / "bad.nii"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4)), good)
    bad.write_bytes(b"no image")
    layers = window.open([str(bad), str(good)], plugin=PLUGIN)
    assert [layer.name for layer in layers] == ["good"]
    [(severity, sentence)] = told()
    assert severity == NotificationSeverity.ERROR
    assert sentence.startswith("bad.nii ")
    assert "\n" not in sentence


@pytest.mark.usefixtures("qapp")
def test_without_a_window_the_error_is_raised(study):
    assert main_window() is None
    with pytest.raises(reader.ReadError, match="choose one by its number"):
        reader.get_reader(str(study))(str(study))


def test_the_chooser_keeps_how_each_part_is_to_be_opened(qtbot):
    parts = [Part(4, "A", "CT", 9), Part(7, "B", "MR", 5, "B: uneven."), Part(8, "", "", 1)]
    dialog = PartChooser(parts, "study")
    qtbot.addWidget(dialog)
    assert dialog.choices() == (Choice(4),)
    dialog.separate.setChecked(True)
    dialog.last.setValue(6)
    dialog.list.selectAll()
    assert dialog.choices() == (Choice(4, 5), Choice(4, 6), Choice(7, 3), Choice(8))
    dialog.list.setCurrentRow(1)
    assert (dialog.first.value(), dialog.last.value(), dialog.last.maximum()) == (3, 3, 5)
    dialog.list.setCurrentRow(0)
    assert (dialog.first.value(), dialog.last.value(), dialog.last.maximum()) == (5, 6, 9)
    dialog.list.clearSelection()
    assert dialog.choices() == ()
    assert not dialog.buttons.button(QDialogButtonBox.StandardButton.Open).isEnabled()
