"""From a file to layers, painted on, and back to a file: the same voxels in the same place."""

import nibabel as nib
import numpy as np
import pydicom
import pytest

from napari_medreasoner.core.errors import ExportError, ImageError
from napari_medreasoner.gui.exporting import Naming
from napari_medreasoner.gui.writer import write_labels
from tests.gui.doubles import prompts
from tests.gui.mouse import Mouse
from tests.imaging.dicom_series import (
    CORONAL_NEGATIVE,
    OBLIQUE,
    SAGITTAL,
    SPACING,
    normal_of,
    series,
)

PLUGIN = "napari-medreasoner"
SHAPE = (7, 9, 8)
TURN = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
NIFTI = {
    "RAS": np.diag((0.5, 2, 3)),
    "LPS": np.diag((-0.5, -2, 3)),
    "sagittal": np.array([[0, 0, -3], [0.5, 0, 0], [0, 2, 0]]),
    "coronal, upside down": np.array([[0.5, 0, 0], [0, 0, 2], [0, -3, 0]]),
    "oblique": TURN @ np.diag((-0.5, 2, -3)) @ TURN.T,
}
DICOM = {"oblique": OBLIQUE, "sagittal": SAGITTAL, "coronal": CORONAL_NEGATIVE}


def unique(shape):
    """Values that occur but once, so that a value names its voxel."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def nifti(path, linear):
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = (-12.5, 30.25, 7)
    nib.save(nib.Nifti1Image(unique(SHAPE), affine), path)
    return path


def paint_everywhere(docked, viewer, image, qtbot):
    """Segment by a box, then paint on slices of all three axes; return the mask layer."""
    view = docked.workspace.view
    view.choose(image)
    plane = view.shown().plane
    docked.workspace.controller.correct(view.source, prompts(1, 1, 3, 3), plane, final=True)
    qtbot.waitUntil(lambda: f"{image.name} mask" in viewer.layers)
    session = docked.workspace.session
    qtbot.waitUntil(lambda: not session.segmenting)
    mask = viewer.layers[f"{image.name} mask"]
    viewer.layers.selection.active = mask
    mask.mode, mask.selected_label, mask.brush_size = "paint", 1, 1
    turns = (viewer.dims.roll, viewer.dims.transpose, viewer.dims.roll, viewer.dims.roll)
    for number, turn in enumerate(turns):
        turn()
        hidden = viewer.dims.order[0]
        place = [number, 2, 3 - number]
        place[hidden] = image.data.shape[hidden] - 1
        viewer.dims.set_point(hidden, image.data_to_world(place)[hidden])
        before = session.document
        Mouse(viewer, mask).drag(tuple(place), tuple(place))
        qtbot.waitUntil(lambda before=before: session.document is not before)
        assert mask.data[tuple(place)] == 1
    return mask


def saved_both_ways(docked, mask, tmp_path, qtbot):
    """By napari's own saving through our writer, and by the widget's export."""
    ours, exported = tmp_path / "layer.nii.gz", tmp_path / "export.nii.gz"
    assert mask.save(str(ours), plugin=PLUGIN) == [str(ours)]
    docked.workspace.controller.export(exported, Naming())
    qtbot.waitUntil(exported.exists)
    qtbot.waitUntil(lambda: docked.workspace.session.status == f"Saved {exported}")
    return nib.load(ours), nib.load(exported)


@pytest.mark.parametrize("kind", NIFTI)
def test_a_mask_goes_back_onto_the_voxels_of_its_nifti(docked, viewer, qtbot, tmp_path, kind):
    path = nifti(tmp_path / "im.nii.gz", NIFTI[kind])
    (image,) = viewer.open(path, plugin=PLUGIN)
    mask = paint_everywhere(docked, viewer, image, qtbot)
    source = nib.load(path)
    painted = set(image.data[mask.data > 0].tolist())
    assert len(painted) >= 4
    for saved in saved_both_ways(docked, mask, tmp_path, qtbot):
        voxels = np.asanyarray(saved.dataobj)
        assert set(np.asanyarray(source.dataobj)[voxels > 0].tolist()) == painted
        places = np.c_[np.argwhere(voxels), np.ones(np.count_nonzero(voxels))]
        assert np.abs(places @ (saved.affine - source.affine).T).max() <= 1e-3


@pytest.mark.parametrize("kind", DICOM)
def test_a_mask_lies_on_the_dicom_slices_it_was_painted_on(docked, viewer, qtbot, tmp_path, kind):
    orientation = DICOM[kind]
    files = series(tmp_path / "series", orientation)
    (image,) = viewer.open(tmp_path / "series", plugin=PLUGIN)
    mask = paint_everywhere(docked, viewer, image, qtbot)
    truth = {}
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    for file in files:
        ds = pydicom.dcmread(file)
        for row, column in np.ndindex(ds.Rows, ds.Columns):
            corner = np.array(ds.ImagePositionPatient, float)
            place = corner + across * SPACING[1] * column + down * SPACING[0] * row
            truth[int(ds.pixel_array[row, column])] = place
    expected = {tuple(np.round(truth[v], 3) + 0.0) for v in image.data[mask.data > 0].tolist()}
    assert len(expected) >= 4
    for saved in saved_both_ways(docked, mask, tmp_path, qtbot):
        voxels = np.argwhere(np.asanyarray(saved.dataobj))
        lps = (np.c_[voxels, np.ones(len(voxels))] @ saved.affine.T)[:, :3] * (-1, -1, 1)
        near = [min(np.abs(np.subtract(place, one)).max() for one in expected) for place in lps]
        assert len(voxels) == len(expected)
        assert max(near) <= 1e-3
    assert np.isclose(np.linalg.norm(normal_of(orientation)), 1)


def test_labels_added_over_our_image_keep_their_values_on_its_grid(viewer, tmp_path):
    path = nifti(tmp_path / "im.nii", NIFTI["oblique"])
    (image,) = viewer.open(path, plugin=PLUGIN)
    viewer._new_labels()  # as the button of the layer list does
    labels = viewer.layers[-1]
    places = {3: (0, 1, 2), 300: (4, 5, 6), 70_000: (6, 0, 1)}
    for value, place in places.items():
        labels.data = labels.data.astype(np.int32)
        labels.data[place] = value
    out = tmp_path / "labels.nii.gz"
    assert labels.save(str(out), plugin=PLUGIN) == [str(out)]
    saved, source = np.asanyarray(nib.load(out).dataobj), np.asanyarray(nib.load(path).dataobj)
    found = {int(value): int(source[saved == value][0]) for value in np.unique(saved)[1:]}
    assert found == {value: int(image.data[place]) for value, place in places.items()}
    assert np.abs(nib.load(out).affine - nib.load(path).affine).max() <= 1e-3


@pytest.mark.parametrize(
    "transform",
    [
        {"scale": (-2, 1.5, -0.5), "translate": (40, 3, 4)},
        {"rotate": [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]], "scale": (2, 1, 1)},
        {"affine": [[-2, 0, 0, 5], [0, 0, 1.5, 0], [0, 1, 0, -3], [0, 0, 0, 1]]},
    ],
)
def test_labels_of_others_lie_where_napari_shows_them(viewer, tmp_path, transform):
    data = np.zeros((4, 5, 6), np.uint8)
    data[3, 1, 2] = data[0, 4, 5] = 7
    labels = viewer.add_labels(data, units=("mm",) * 3, **transform)
    labels.save(str(tmp_path / "x.nii"), plugin=PLUGIN)
    saved = nib.load(tmp_path / "x.nii")
    voxels = np.argwhere(np.asanyarray(saved.dataobj) == 7)
    ras = (np.c_[voxels, np.ones(2)] @ saved.affine.T)[:, :3]
    shown = [labels.data_to_world(place) for place in np.argwhere(data)]
    lps = {tuple(np.round((-left, -back, up), 3) + 0.0) for up, back, left in shown}
    assert {tuple(np.round(place, 3) + 0.0) for place in ras} == lps


def test_a_picture_of_labels_is_one_slice(viewer, tmp_path):
    labels = viewer.add_labels(np.eye(4, 6, dtype=bool).astype(int), scale=(2, 3))
    labels.save(str(tmp_path / "x.nii.gz"), plugin=PLUGIN)
    assert nib.load(tmp_path / "x.nii.gz").shape == (6, 4, 1)


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        (np.zeros((3, 4, 5), int), ExportError, "no finding to save"),
        (np.ones((3, 4, 5)), ExportError, "convert it to whole numbers"),
        (np.full((3, 4, 5), -2), ExportError, "below zero"),
        (np.ones((2, 3, 4, 5), int), ImageError, "4 dimensions"),
        ([np.ones((4, 4), int), np.ones((2, 2), int)], ExportError, "convert it to whole numbers"),
    ],
)
def test_what_cannot_be_written_is_said_and_the_old_file_stays(tmp_path, data, error, sentence):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"as before")
    with pytest.raises(error, match=sentence):
        write_labels(str(path), data, {"name": "x"})
    assert path.read_bytes() == b"as before"


def test_a_kind_of_file_that_is_not_ours_is_not_written(viewer, tmp_path):
    labels = viewer.add_labels(np.ones((4, 5), int))
    with pytest.warns(UserWarning, match="not a valid writer"):
        assert labels.save(str(tmp_path / "x.mha"), plugin=PLUGIN) == []
