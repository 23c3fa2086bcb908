"""What the model sees, beside the question: the right slice through the right window, in time."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from napari_medreasoner.gui.images import LayerNotes, volume_layer
from napari_medreasoner.gui.panels import AS_SHOWN
from napari_medreasoner.gui.preview import SIDE
from napari_medreasoner.imaging.volume import Volume, plain_grid
from napari_medreasoner.imaging.window import PRESETS, model_picture, preset_window

SHAPE = (5, 120, 200)


class Lazy:
    """An array that is only read in parts, and says which and where."""

    ndim = 3

    def __init__(self, data):
        self._data = data
        self.shape, self.dtype = data.shape, data.dtype
        self.read = []

    def __getitem__(self, key):
        self.read.append((threading.current_thread() is threading.main_thread(), key))
        return self._data[key]

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("all of it was read")


def ct():
    values = np.random.default_rng(0).integers(-1000, 1000, SHAPE)
    return Volume(values.astype(np.int16), plain_grid(SHAPE), "ct", modality="CT")


def add(viewer, volume):
    data, options, _ = volume_layer(LayerNotes(volume, modality=volume.modality))
    return viewer.add_image(data, **options)


def pictured(docked):
    """Collect what is pictured from now on."""
    seen = []
    docked.workspace.pictured.connect(seen.append)
    return seen


def shows(seen, image_slice, window):
    return bool(seen) and np.array_equal(seen[-1], model_picture(image_slice, window, SIDE))


def test_the_picture_follows_slice_window_image_and_data(docked, viewer, qtbot):
    seen = pictured(docked)
    image = add(viewer, ct())
    qtbot.waitUntil(lambda: shows(seen, image.data[2], tuple(image.contrast_limits)))
    assert max(seen[-1].shape[:2]) <= SIDE
    viewer.dims.set_current_step(0, 4)
    qtbot.waitUntil(lambda: shows(seen, image.data[4], tuple(image.contrast_limits)))
    image.contrast_limits = (-50, 60)
    qtbot.waitUntil(lambda: shows(seen, image.data[4], (-50, 60)))
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 7)
    qtbot.waitUntil(lambda: shows(seen, image.data[:, 7], (-50, 60)))
    image.data = image.data[::-1].copy()
    qtbot.waitUntil(lambda: shows(seen, image.data[:, 7], (-50, 60)))
    shown = docked.question_panel.picture.pixmap()
    assert max(shown.width(), shown.height()) == SIDE
    viewer.layers.remove(image)
    qtbot.waitUntil(lambda: docked.question_panel.picture.pixmap().isNull())


def test_one_slice_of_a_lazy_image_is_read_beside_the_qt_thread(docked, viewer, qtbot):
    lazy = Lazy(ct().array)
    seen = pictured(docked)
    viewer.add_image(lazy, contrast_limits=(-100, 100), multiscale=False, name="lazy")
    qtbot.waitUntil(lambda: shows(seen, lazy._data[2], (-100, 100)))
    ours = [key for on_qt, key in lazy.read if not on_qt]
    assert ours
    assert all(key[0] == 2 for key in ours)


def test_presets_are_for_a_ct_in_hounsfield_units(docked, viewer, qtbot):
    image = add(viewer, ct())
    combo = docked.question_panel.preset
    assert combo.isEnabled()
    names = [combo.itemText(index).lower() for index in range(combo.count())]
    assert names == [AS_SHOWN.lower(), *PRESETS]
    name = list(PRESETS)[-1]
    combo.setCurrentIndex(combo.findData(name))
    combo.activated.emit(combo.currentIndex())
    assert tuple(image.contrast_limits) == preset_window(name)
    assert combo.currentData() == name
    image.contrast_limits = (-1, 77)
    assert combo.currentText() == AS_SHOWN
    docked.question_panel.set_modality("MRI")
    assert not combo.isEnabled()
    docked.question_panel.set_modality("CT")
    viewer.add_image(np.arange(40, dtype=np.uint8).reshape(5, 8), name="picture")
    docked._images.value = viewer.layers["picture"]
    assert not combo.isEnabled()


@pytest.mark.parametrize(
    ("notes", "text"), [((), ""), (("A.",), "A."), (("A.", "B."), "A. (and 1 more)")]
)
def test_what_to_know_about_an_image_stands_below_it(docked, viewer, notes, text):
    add(viewer, replace(ct(), warnings=notes))
    note = docked.question_panel.note
    assert note.text() == text
    assert note.toolTip() == "\n".join(notes)
    assert note.isHidden() == (not notes)


def test_the_widget_fits_a_window_of_900_pixels(docked, viewer):
    add(viewer, replace(ct(), warnings=("A sentence of some length about how it was read.",) * 3))
    assert docked.minimumSizeHint().height() <= 760
