"""Where our layers lie in napari's world, and where voxels of others' layers lie in the patient."""

from itertools import permutations, product

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.gui.images import (
    LayerNotes,
    bring_into_view,
    geometry_of,
    show_slice,
    shown_plane,
    volume_layer,
)
from napari_medreasoner.imaging.orientation import displayed
from napari_medreasoner.imaging.volume import Volume, plain_grid

SHAPE = (5, 6, 7)
TURN = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
FOREIGN = {
    "negative scale": {"scale": (-3, -0.5, 0.5), "translate": (40, 1, 2)},
    "rotation": {"rotate": TURN, "scale": (2, 1, 0.5), "translate": (-7, 8, 9)},
    "shear": {"shear": [0.0, 0.0, 0.3], "scale": (2, 1, 1)},
    "affine": {"affine": [[2, 0, 0, 5], [0, 0, -1.5, 0], [0, 1, 0.25, -3], [0, 0, 0, 1]]},
    "all of it": {
        "affine": [[-2, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]],
        "rotate": TURN,
        "scale": (3, 2, -1),
        "shear": [0.1, 0.2, 0.0],
        "translate": (100, -50, 25),
    },
}


@pytest.fixture
def model():
    return ViewerModel()


def ramp(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def add(model, volume):
    data, options, _ = volume_layer(LayerNotes(volume))
    return model.add_image(data, **options)


def centres(grid, places):
    """RAS millimetres of voxels given as (slice, row, column)."""
    last_first = np.c_[places[:, ::-1], np.ones(len(places))]
    return (last_first @ grid.affine.T)[:, :3]


def shown_at(layer, places, millimetres=1.0):
    """The same from where napari shows them: superior, posterior, left."""
    worlds = np.array([layer.data_to_world(place) for place in places]) * millimetres
    superior, posterior, left = worlds.T
    return np.c_[-left, -posterior, superior]


@pytest.mark.parametrize("unit", ["mm", "um", "cm"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_voxels_of_a_foreign_layer_lie_where_napari_shows_them(model, kind, unit):
    layer = model.add_image(np.zeros(SHAPE), units=(unit,) * 3, **FOREIGN[kind])
    places = np.array(list(product(*[(0, 1, size - 1) for size in SHAPE])))
    place = geometry_of(layer)
    millimetres = {"mm": 1.0, "um": 1e-3, "cm": 10.0}[unit]
    apart = centres(place.grid, places) - shown_at(layer, places, millimetres)
    assert np.abs(apart).max() <= 1e-9
    assert place.grid.known
    assert place.file is None
    labels = model.add_labels(np.zeros(SHAPE, int), units=(unit,) * 3, **FOREIGN[kind])
    assert np.allclose(geometry_of(labels).grid.affine, place.grid.affine)


def test_pictures_rgb_and_pixel_units(model):
    picture = model.add_image(np.zeros((6, 7, 3)), rgb=True, scale=(-2, 0.5), translate=(3, 4))
    grid = geometry_of(picture).grid
    assert (grid.shape, grid.known) == ((1, 6, 7), False)
    assert centres(grid, np.array([[0, 1, 2]])).tolist() == [[-5, -1, 0]]


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 1, 3, 4)])
def test_what_is_no_volume_is_refused(model, shape):
    layer = model.add_labels(np.zeros(shape, int))
    with pytest.raises(ImageError, match="dimensions"):
        geometry_of(layer)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_a_straight_image_lies_in_patient_millimetres(model, axes, signs):
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(np.array((0.5, 2, 3)) * signs))[list(axes)]
    affine[:3, 3] = (-10.5, 20.25, 30)
    layer = add(model, displayed(ramp(SHAPE), affine, code=1, name="x"))
    places = np.array(list(product(*[(0, size - 1) for size in layer.data.shape])))
    grid = geometry_of(layer).grid
    assert np.abs(centres(grid, places) - shown_at(layer, places)).max() <= 1e-9
    assert layer.axis_labels == ("superior", "posterior", "left")
    assert (layer.scale > 0).all()


def test_oblique_images_of_one_orientation_lie_over_each_other(model):
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag((-1, -2, 3))
    affine[:3, 3] = (9, -8, 7)
    first = add(model, displayed(ramp(SHAPE), affine, code=1, name="x"))
    affine[:3, 3] = (affine @ (1, 2, 1, 1))[:3]
    second = add(model, displayed(ramp(SHAPE), affine, code=1, name="y"))
    assert np.allclose(second.data_to_world((0, 0, 0)), first.data_to_world((1, 2, 1)))
    assert np.allclose(geometry_of(first).grid.affine[:3, 3], (9, -8, 7))
    assert np.allclose(first.rotate, np.eye(3))


def test_an_image_without_geometry_stays_in_pixels(model):
    layer = add(model, Volume(ramp((4, 5)), plain_grid((4, 5)), "x"))
    assert layer.data_to_world((1, 2)) == (1, 2)
    assert {str(unit) for unit in layer.units} == {"pixel"}
    assert not geometry_of(layer).grid.known


def test_the_slice_on_show_is_right_among_other_units(model):
    ours = model.add_image(np.zeros((10, 5, 6)), scale=(3, 1, 1), units=("mm",) * 3)
    other = model.add_image(np.zeros((10, 5, 6)), scale=(6000, 1000, 1000), units=("um",) * 3)
    show_slice(model, ours, SlicePlane(axis=0, index=4))
    assert shown_plane(model, ours) == SlicePlane(axis=0, index=4)
    assert shown_plane(model, other) == SlicePlane(axis=0, index=2)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_chosen_image_far_from_what_is_on_show_comes_into_view(model, order):
    near = model.add_image(np.zeros((10, 20, 30)), units=("mm",) * 3)
    options = {"units": ("mm",) * 3, "scale": (2, 3, 4), "translate": (500, -700, 900)}
    far = model.add_image(np.zeros((11, 21, 31)), **options)
    model.dims.order = order
    for layer in (far, near):
        bring_into_view(model, layer)
        plane = shown_plane(model, layer)
        assert plane == SlicePlane(axis=order[0], index=layer.data.shape[order[0]] // 2)
        low, high = layer.extent.world[:, list(order[1:])]
        centre = model.scene.camera.center[-2:]
        assert (low < centre).all()
        assert (centre < high).all()
    before = model.dims.point, model.scene.camera.center
    bring_into_view(model, near)
    assert (model.dims.point, model.scene.camera.center) == before
