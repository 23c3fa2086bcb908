"""Real napari layers: what is drawn, and what comes back of the user's mouse."""

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Box, Point, Prompts, SlicePlane
from napari_medreasoner.gui.images import LayerNotes, geometry_of, volume_layer, window_of
from napari_medreasoner.gui.layers import LayerView
from napari_medreasoner.imaging.volume import Volume, plain_grid
from tests.gui.mouse import Mouse

BOX = Box.from_corners(20, 10, 60, 50)
POINTS = (Point(x=30, y=20), Point(x=50, y=40, positive=False))
PROMPTS = Prompts(box=BOX, points=POINTS)
PLANE = SlicePlane(axis=0, index=5)


class Desk:
    """A viewer with one image, its layers, and what they reported."""

    def __init__(self, viewer, shape=(10, 80, 100), **options):
        self.viewer = viewer
        self.view = LayerView(viewer)
        self.image = viewer.add_image(np.zeros(shape, np.uint8), **options)
        self.view.choose(self.image)
        self.source = self.view.source
        self.edits = []
        self.refused = []
        self.view.edited.connect(lambda *edit: self.edits.append(edit[1:]))
        self.view.refused.connect(self.refused.append)

    def show(self, prompts=PROMPTS, plane=PLANE):
        self.view.show_prompts(self.source, prompts, plane)
        if plane is not None:
            place = [0.0] * 3
            place[plane.axis] = plane.index
            world = self.image.data_to_world(place)
            self.viewer.dims.set_point(plane.axis, world[plane.axis])
        self.edits.clear()

    @property
    def box(self):
        return self.viewer.layers["Image box"]

    @property
    def points(self):
        return self.viewer.layers["Image points"]

    @property
    def mask(self):
        return self.viewer.layers["Image mask"]

    def mouse(self, layer):
        self.viewer.layers.selection.active = layer
        return Mouse(self.viewer, layer)


@pytest.fixture
def model():
    return ViewerModel()


@pytest.fixture
def desk(model):
    return Desk(model)


def test_drawn_box_and_points_lie_on_their_pixels(desk):
    desk.show()
    assert desk.box.shape_type == ["rectangle"]
    corners = desk.box.data[0]
    assert corners.min(axis=0).tolist() == [5, 9.5, 19.5]
    assert corners.max(axis=0).tolist() == [5, 49.5, 59.5]
    assert desk.points.data.tolist() == [[5, 20, 30], [5, 40, 50]]
    assert list(desk.points.features["label"]) == ["positive", "negative"]
    green, red = desk.points.face_color[:, :3]
    assert green[1] > green[0]
    assert red[0] > red[1]
    assert desk.box.edge_width == [0.5]
    assert desk.edits == []


def test_a_box_drag_reports_live_and_then_once_for_all(desk):
    desk.show()
    desk.box.mode = "select"
    desk.mouse(desk.box).drag((5, 30, 40), (5, 31, 42), (5, 33, 45.2), (5, 36, 50.2))
    moved = Prompts(box=Box.from_corners(30, 16, 70, 56), points=POINTS)
    assert [final for *_, final in desk.edits] == [False] * (len(desk.edits) - 1) + [True]
    assert len(desk.edits) >= 3
    assert desk.edits[-1] == (moved, PLANE, True)
    assert desk.box.data[0].min(axis=0).tolist() == [5, 15.5, 29.5]


def test_a_dragged_vertex_leaves_an_upright_box(desk):
    desk.show()
    desk.box.mode = "direct"
    desk.box.selected_data = {0}
    desk.mouse(desk.box).drag((5, 9.5, 19.5), (5, 5, 12), (5, 3.5, 9.5))
    assert desk.edits[-1][0].box == Box.from_corners(10, 4, 60, 50)
    assert desk.box.shape_type == ["rectangle"]
    assert len(desk.box.data) == 1


def test_the_newest_of_two_boxes_stays(desk):
    desk.show()
    desk.box.mode = "add_rectangle"
    desk.mouse(desk.box).drag((5, 59.6, 69.6), (5, 65, 80), (5, 69.4, 89.4))
    assert len(desk.box.data) == 1
    assert desk.edits[-1] == (
        Prompts(box=Box.from_corners(70, 60, 90, 70), points=POINTS),
        PLANE,
        True,
    )


def test_a_stray_click_with_the_box_tool_changes_nothing(desk):
    desk.show()
    desk.box.mode = "add_rectangle"
    desk.mouse(desk.box).click(5, 60, 70)
    assert [edit for edit in desk.edits if edit[0] != PROMPTS] == []
    assert desk.box.data[0].min(axis=0).tolist() == [5, 9.5, 19.5]


def test_a_box_dragged_off_the_image_stays_at_its_edge(desk):
    desk.show()
    desk.box.mode = "select"
    desk.mouse(desk.box).drag((5, 30, 40), (5, 30, 100), (5, 30, 300))
    assert "outside the image" in desk.refused[-1]
    assert desk.box.data[0].min(axis=0).tolist() == [5, 9.5, 79.5]
    assert desk.box.data[0].max(axis=0).tolist() == [5, 49.5, 99.5]
    edge = Prompts(box=Box.from_corners(80, 10, 100, 50), points=POINTS)
    assert desk.edits[-1] == (edge, PLANE, True)


def test_other_shapes_become_boxes(desk):
    desk.show()
    desk.box.add([[5, 19.6, 30], [5, 40, 9.6], [5, 59.4, 49.4]], shape_type="polygon")
    assert desk.box.shape_type == ["rectangle"]
    assert desk.edits[-1][0].box == Box.from_corners(10, 20, 50, 60)


def test_points_are_added_moved_flipped_and_removed(desk):
    desk.show()
    desk.view.start_points(positive=False)
    desk.mouse(desk.points).click(5, 33.4, 44.2)
    assert desk.edits[-1][0].points == (*POINTS, Point(x=44, y=33, positive=False))
    assert desk.points.data[-1].tolist() == [5, 33, 44]
    assert len(set(desk.points.size)) == 1

    desk.points.mode = "select"
    desk.points.selected_data = {2}
    desk.view.flip_selected()
    assert desk.edits[-1][0].points[2] == Point(x=44, y=33, positive=True)
    assert list(desk.points.features["label"]) == ["positive", "negative", "positive"]

    desk.edits.clear()
    desk.mouse(desk.points).drag((5, 20, 30), (5, 21, 31), (5, 25, 36))
    assert len(desk.edits) >= 2
    assert desk.edits[-1] == (
        Prompts(box=BOX, points=(Point(x=36, y=25), POINTS[1], Point(x=44, y=33, positive=True))),
        PLANE,
        True,
    )

    desk.points.selected_data = {1}
    desk.points.remove_selected()
    assert len(desk.edits[-1][0].points) == 2
    assert desk.edits[-1][2]


def test_the_key_t_flips_the_selected_point(viewer):
    desk = Desk(viewer)
    desk.show()
    desk.viewer.layers.selection.active = desk.points
    desk.points.selected_data = {0}
    handler = desk.viewer.window._qt_viewer.canvas._key_map_handler
    handler.press_key("T")
    handler.release_key("T")
    assert not desk.edits[-1][0].points[0].positive


def test_positive_points_can_be_added_without_any_answer(desk):
    desk.viewer.dims.set_current_step(0, 0)
    desk.view.start_points(positive=True)
    desk.mouse(desk.points).click(0, 7, 9)
    plane = SlicePlane(axis=0, index=0)
    assert desk.edits[-1] == (Prompts(points=(Point(x=9, y=7),)), plane, True)


def test_deleting_the_box_leaves_the_points(desk):
    desk.show()
    desk.box.selected_data = {0}
    desk.box.remove_selected()
    assert desk.edits[-1] == (Prompts(points=POINTS), PLANE, True)


def test_scrolling_reports_nothing(desk):
    desk.show()
    for index in (4, 7, 5):
        desk.viewer.dims.set_current_step(0, index)
    assert desk.edits == []


def test_a_box_on_another_slice_takes_the_prompts_there(desk):
    desk.show()
    desk.viewer.dims.set_current_step(0, 7)
    desk.view.start_box()
    desk.mouse(desk.box).drag((7, 9.6, 9.6), (7, 15, 15), (7, 20.4, 30.4))
    moved = Prompts(box=Box.from_corners(10, 10, 31, 21))
    assert desk.edits[-1] == (moved, SlicePlane(axis=0, index=7), True)
    assert len(desk.points.data) == 0


@pytest.mark.parametrize(("order", "axis"), [((1, 0, 2), 1), ((2, 0, 1), 2), ((2, 1, 0), 2)])
def test_boxes_are_drawn_on_coronal_and_sagittal_slices(desk, order, axis):
    desk.viewer.dims.order = order
    desk.viewer.dims.set_current_step(axis, 50)
    desk.view.start_box()
    start, middle, end = ([0.0, 0.0, 0.0] for _ in range(3))
    rest = [other for other in range(3) if other != axis]
    for place, values in ((start, (1.5, 9.5)), (middle, (4, 20)), (end, (7.5, 39.5))):
        place[axis] = 50.0
        place[rest[0]], place[rest[1]] = values
    desk.mouse(desk.box).drag(tuple(start), tuple(middle), tuple(end))
    prompts, plane, final = desk.edits[-1]
    assert plane == SlicePlane(axis=axis, index=50)
    assert prompts.box == Box.from_corners(10, 2, 40, 8)
    assert final
    assert desk.view.shown().plane == plane


@pytest.mark.parametrize(
    "options",
    [
        {"scale": (3, 0.5, 0.5), "translate": (-20, 7, 9)},
        {"scale": (-3, -0.5, 0.5), "translate": (40, 0, 0)},
        {"rotate": [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]], "units": ("mm",) * 3},
        {"affine": [[2, 0, 0, 5], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]},
        {"shear": [0.0, 0.0, 0.3], "scale": (2, 1, 1), "axis_labels": ("z", "y", "x")},
    ],
)
def test_layers_lie_where_the_image_lies(model, options):
    desk = Desk(model, **options)
    desk.show()
    desk.view.show_mask(desk.source, np.ones((10, 80, 100), np.uint8))
    place = (5, 23, 31)
    for layer in (desk.box, desk.points, desk.mask):
        assert np.allclose(layer.data_to_world(place), desk.image.data_to_world(place))
        assert layer.units == desk.image.units
        assert layer.axis_labels == desk.image.axis_labels
    assert desk.view.shown().plane == PLANE
    desk.box.mode = "select"
    desk.mouse(desk.box).drag((5, 30, 40), (5, 32, 42), (5, 33, 45))
    assert desk.edits[-1][0].box == Box.from_corners(25, 13, 65, 53)


def test_a_two_dimensional_rgb_image(model):
    desk = Desk(model, shape=(80, 100, 3), rgb=True)
    desk.show(PROMPTS, None)
    target = desk.view.shown()
    assert (target.plane, target.window, target.source.shape) == (None, None, (80, 100))
    desk.box.mode = "select"
    desk.mouse(desk.box).drag((30, 40), (31, 41))
    assert desk.edits[-1] == (
        Prompts(box=BOX.model_copy(update={"x1": 21, "y1": 11, "x2": 61, "y2": 51}), points=POINTS),
        None,
        True,
    )


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [((2, 10, 20, 30), "4 dimensions"), ((10, 80, 100), "switch to 2D")],
)
def test_what_has_no_slice_on_show_is_said(model, shape, sentence):
    desk = Desk(model, shape=shape)
    model.dims.ndisplay = 3
    with pytest.raises(ImageError, match=sentence):
        desk.view.shown()


def test_a_multiscale_image_is_refused(model):
    view = LayerView(model)
    view.choose(model.add_image([np.zeros((64, 64)), np.zeros((32, 32))], multiscale=True))
    with pytest.raises(ImageError, match="multiscale"):
        view.shown()


def test_no_image_is_said(model):
    with pytest.raises(ImageError, match="no image"):
        LayerView(model).shown()


def test_brush_strokes_are_reported_with_their_slice(desk):
    pixels = np.zeros((10, 80, 100), np.uint8)
    pixels[5, 10:20, 10:20] = 1
    desk.view.show_mask(desk.source, pixels)
    begun, painted = [], []
    desk.view.painting.connect(begun.append)
    desk.view.painted.connect(lambda _, plane: painted.append(plane))
    desk.viewer.dims.set_current_step(0, 5)
    desk.mask.mode = "paint"
    desk.mask.selected_label = 1
    desk.mask.brush_size = 3
    desk.mouse(desk.mask).drag((5, 50, 50), (5, 50, 55))
    assert begun == [desk.source]
    assert painted == [PLANE]
    assert pixels[5, 50, 52]
    desk.mask.n_edit_dimensions = 3
    desk.mouse(desk.mask).drag((5, 60, 50), (5, 60, 55))
    assert painted[-1] is None


def test_the_mask_layer_shows_the_array_itself(desk):
    pixels = np.zeros((10, 80, 100), np.uint8)
    desk.view.show_mask(desk.source, pixels)
    assert "Image mask" not in desk.viewer.layers
    pixels[5] = 1
    desk.view.show_mask(desk.source, pixels)
    assert desk.mask.data is pixels


def test_deleted_layers_come_back_with_the_next_result(desk):
    desk.show()
    pixels = np.ones((10, 80, 100), np.uint8)
    desk.view.show_mask(desk.source, pixels)
    for name in ("Image box", "Image points", "Image mask"):
        del desk.viewer.layers[name]
    assert desk.edits == []
    desk.show()
    desk.view.show_mask(desk.source, pixels)
    assert len(desk.box.data) == 1
    assert len(desk.points.data) == 2
    assert desk.mask.data is pixels


def test_new_data_in_the_layer_is_a_new_image(desk):
    forgotten = []
    desk.view.forgotten.connect(forgotten.append)
    desk.image.data = np.ones((10, 80, 100), np.uint8)
    assert desk.view.shown().source is not desk.source
    assert forgotten == [desk.source]
    desk.viewer.layers.remove(desk.image)
    assert len(forgotten) == 2


def test_geometry_of_a_foreign_layer_is_its_transform(model):
    image = model.add_image(
        np.zeros((4, 5, 6)), scale=(3, 2, 1), translate=(10, 20, 30), units=("mm",) * 3
    )
    grid = geometry_of(image).grid
    assert geometry_of(image).file is None
    assert grid.known
    assert grid.spacing == (3, 2, 1)
    plane = SlicePlane(axis=0, index=1)
    assert grid.to_patient(plane, x=2, y=1) == (-32, -22, 13)
    plain = geometry_of(model.add_image(np.zeros((5, 6)))).grid
    assert not plain.known
    assert plain.shape == (1, 5, 6)


@pytest.mark.parametrize("inverted", [False, True])
def test_the_model_sees_dark_what_the_user_sees_dark(model, inverted):
    volume = Volume(
        np.arange(12, dtype=np.int16).reshape(3, 4), plain_grid((3, 4)), "x", inverted=inverted
    )
    data, options, _ = volume_layer(LayerNotes(volume))
    layer = model.add_image(data, **options)
    black, white = window_of(layer)
    assert (black > white) == inverted
    assert sorted((black, white)) == layer.contrast_limits
