"""The layers of one finding: box, points and mask over one image layer.

Every edit of the user is read back in pixels and put straight: any shape becomes an
axis-aligned box on pixel borders, the newest box replaces the older one, points lie on
pixels, and what lies on another slice than the edit gives way to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel  # type: ignore[import-untyped]
from napari.layers import Image, Labels, Layer, Points, Shapes  # type: ignore[import-untyped]
from napari.utils.colormaps import DirectLabelColormap  # type: ignore[import-untyped]
from numpy.typing import NDArray
from psygnal import Signal

from napari_medreasoner.core.errors import ImageError, PromptError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.gui.coordinates import (
    box_of,
    lies_on,
    point_of,
    positions_of,
    rectangle_of,
)
from napari_medreasoner.gui.images import mask_metadata
from napari_medreasoner.gui.placing import same_place

__all__ = ["MaskOverlay", "PromptOverlay"]

_SIGN: Final = "label"
_POSITIVE: Final = "positive"
_NEGATIVE: Final = "negative"
_COLOURS: Final = {_POSITIVE: "#3ddc84", _NEGATIVE: "#ff5252"}
_BOX_COLOUR: Final = "#ffd54f"
_MASK_COLOUR: Final = "#29b6f6"
_DRAWN_BY_DRAGGING: Final = {"add_rectangle", "add_ellipse", "add_line"}
_PAINTING: Final = {"paint", "erase", "fill", "polygon"}


class _Overlay:
    """Layers that follow an image, made when needed and again when the user deleted them."""

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        self._viewer = viewer
        self._image = image

    def _alive(self, layer: Layer | None) -> bool:
        return layer is not None and layer in self._viewer.layers

    def _add(self, layer: Layer, index: int | None = None) -> None:
        """Add a layer, on top or at a place, and leave the user's selection as it is."""
        layers = self._viewer.layers
        selected = set(layers.selection)
        layers.insert(len(layers) if index is None else index, layer)
        layers.selection = selected


class MaskOverlay(_Overlay):
    """The labels layer; it holds the array it is given, and shows it after each change.

    Parameters
    ----------
    viewer : ViewerModel
        Where it lives.
    image : Image
        The layer it lies on.
    """

    undo = Signal()
    redo = Signal()
    painting = Signal()
    painted = Signal(bool)
    """Whether the stroke may have gone through several slices."""

    def __init__(self, viewer: ViewerModel, image: Image) -> None:
        super().__init__(viewer, image)
        self.layer: Labels | None = None

    def show(self, pixels: NDArray[np.uint8]) -> None:
        """Show the array as it is now."""
        layer = self.layer
        if layer is None or not self._alive(layer):
            if pixels.any():
                self.layer = self._new(pixels)
                # Below box and points, which must stay within reach of the mouse.
                self._add(self.layer, self._viewer.layers.index(self._image) + 1)
        elif layer.data is not pixels:
            layer.data = pixels
        else:
            layer.refresh(extent=False)

    def _new(self, pixels: NDArray[np.uint8]) -> Labels:
        layer = Labels(
            pixels,
            name=f"{self._image.name} mask",
            opacity=0.5,
            colormap=DirectLabelColormap(
                color_dict={None: _MASK_COLOUR, 0: "transparent", 1: _MASK_COLOUR}
            ),
            metadata=mask_metadata(self._image),
            **same_place(self._image),
        )
        # napari's own undo of a labels layer knows nothing of ours, and its keys come first.
        layer.bind_key("Control-Z", lambda _: self.undo.emit(), overwrite=True)
        layer.bind_key("Control-Shift-Z", lambda _: self.redo.emit(), overwrite=True)
        layer.mouse_drag_callbacks.append(self._on_press)
        layer.events.paint.connect(self._on_paint)
        return layer

    def close(self) -> None:
        """Stop listening to the layer, which stays."""
        if self.layer is not None:
            for key in ("Control-Z", "Control-Shift-Z"):
                self.layer.bind_key(key, None)
            self.layer.mouse_drag_callbacks.remove(self._on_press)
            self.layer.events.paint.disconnect(self._on_paint)

    def _on_press(self, layer: Labels, _event: Any) -> None:
        if str(layer.mode) in _PAINTING:
            self.painting.emit()

    def _on_paint(self, _event: Any) -> None:
        if self.layer is not None:
            self.painted.emit(self.layer.n_edit_dimensions > 2)


class PromptOverlay(_Overlay):
    """The shapes layer with the box and the points layer with the signed points.

    Parameters
    ----------
    viewer : ViewerModel
        Where they live.
    image : Image
        The layer they lie on.
    shape : tuple of int
        Spatial shape of the image.
    shown : callable
        Gives the slice on show; raises ImageError when there is none.
    """

    edited = Signal(object, object, bool)
    """Prompts, plane, and whether the mouse button is up."""
    refused = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        image: Image,
        shape: tuple[int, ...],
        shown: Callable[[], SlicePlane | None],
    ) -> None:
        super().__init__(viewer, image)
        self._shape = shape
        self._shown = shown
        self.box: Shapes | None = None
        self.points: Points | None = None
        self._prompts = Prompts()
        self._plane: SlicePlane | None = None
        self._seen: list[NDArray[Any]] = []
        self._writing = False
        self._still = False  # a shape was begun and the mouse has not moved since

    # --- drawing --------------------------------------------------------------------------

    def show(self, prompts: Prompts, plane: SlicePlane | None) -> None:
        """Draw box and points on their slice."""
        self._prompts, self._plane = prompts, plane
        fresh = not self._alive(self.box)
        box, points = self.ensure()
        with self._own_writes():
            rectangle = (
                [] if prompts.box is None else [(rectangle_of(prompts.box, plane), "rectangle")]
            )
            box.data = rectangle
            box.edge_width = box.current_edge_width  # napari gives a first shape a width of 1
            points.data = positions_of(prompts.points, plane, len(self._shape))
            sign = points.feature_defaults[_SIGN][0]
            signs = [_POSITIVE if point.positive else _NEGATIVE for point in prompts.points]
            points.features = {_SIGN: np.array(signs, dtype=object)}
            points.feature_defaults = {_SIGN: sign}
        if fresh:
            self._viewer.layers.selection.active = box
            box.mode = "select"

    def ensure(self) -> tuple[Shapes, Points]:
        """Return both layers, made anew when they are missing."""
        with self._own_writes():
            if self.box is None or not self._alive(self.box):
                self.box = self._new_box()
                self._add(self.box)
            if self.points is None or not self._alive(self.points):
                self.points = self._new_points()
                self._add(self.points)
        return self.box, self.points

    def _new_box(self) -> Shapes:
        layer = Shapes(
            ndim=len(self._shape),
            name=f"{self._image.name} box",
            edge_color=_BOX_COLOUR,
            face_color="transparent",
            edge_width=max(self._shape[-2:]) / 200,
            opacity=1.0,
            **same_place(self._image),
        )
        layer.current_edge_color = _BOX_COLOUR
        layer.current_face_color = "transparent"
        layer.current_edge_width = max(self._shape[-2:]) / 200
        layer.mouse_drag_callbacks.append(self._watch_mouse)
        layer.events.set_data.connect(self._on_live)
        layer.events.data.connect(self._on_data)
        return layer

    def _new_points(self) -> Points:
        layer = Points(
            ndim=len(self._shape),
            name=f"{self._image.name} points",
            # An untyped empty column would be one of floats, and refuse a sign.
            features={_SIGN: np.array([], dtype=object)},
            feature_defaults={_SIGN: _POSITIVE},
            face_color=_SIGN,
            face_color_cycle=_COLOURS,
            border_color="white",
            border_width=0.1,
            opacity=1.0,
            size=max(self._shape[-2:]) / 40,
            **same_place(self._image),
        )
        layer.bind_key("t", lambda _: self.flip_selected(), overwrite=True)
        layer.events.set_data.connect(self._on_live)
        layer.events.data.connect(self._on_data)
        return layer

    @contextmanager
    def _own_writes(self) -> Iterator[None]:
        """Keep our handlers, and nobody else's, from taking our writes for the user's."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
            self._seen = self._raw()

    def _raw(self) -> list[NDArray[Any]]:
        boxes = [np.array(shape) for shape in self.box.data] if self.box is not None else []
        points = [] if self.points is None else [np.array(self.points.data)]
        return [*boxes, *points]

    def close(self) -> None:
        """Stop listening to the layers, which stay."""
        if self.box is not None:
            self.box.mouse_drag_callbacks.remove(self._watch_mouse)
        for layer in (self.box, self.points):
            if layer is not None:
                layer.events.set_data.disconnect(self._on_live)
                layer.events.data.disconnect(self._on_data)
        if self.points is not None:
            self.points.bind_key("t", None)

    # --- the user's edits -----------------------------------------------------------------

    def start_box(self) -> None:
        """Let the next drag of the mouse draw the box."""
        box, _ = self.ensure()
        self._viewer.layers.selection.active = box
        box.mode = "add_rectangle"

    def start_points(self, *, positive: bool) -> None:
        """Let the next clicks add points of this sign."""
        _, points = self.ensure()
        self._viewer.layers.selection.active = points
        points.selected_data = set()
        points.feature_defaults = {_SIGN: _POSITIVE if positive else _NEGATIVE}
        points.mode = "add"

    def flip_selected(self) -> None:
        """Turn the selected points from positive to negative and back."""
        points = self.points
        if points is None or not points.selected_data:
            return
        flipped = [
            point.model_copy(update={"positive": not point.positive})
            if index in points.selected_data
            else point
            for index, point in enumerate(self._prompts.points)
        ]
        chosen = set(points.selected_data)
        self._take(Prompts(box=self._prompts.box, points=tuple(flipped)), self._plane)
        points.selected_data = chosen

    def _watch_mouse(self, layer: Shapes, event: Any) -> Iterator[None]:
        """Tell a drawn shape from a stray click; napari calls this before its own tool."""
        self._still = str(layer.mode) in _DRAWN_BY_DRAGGING
        yield
        while event.type == "mouse_move":
            self._still = False
            yield

    def _on_live(self, _event: Any) -> None:
        """While the button is down; napari also calls this when a slice is changed."""
        if self._writing or self._still or _equal(self._raw(), self._seen):
            return
        try:
            plane = self._shown()
            prompts = self._read(plane)
        except (ImageError, PromptError):
            return  # it stays where it was last on the image; said when the button is up
        if prompts is not None:
            self._seen = self._raw()
            self._prompts, self._plane = prompts, plane
            self.edited.emit(prompts, plane, False)

    def _on_data(self, event: Any) -> None:
        """After an edit is complete."""
        action = str(event.action)
        if self._writing or action not in {"added", "changed", "removed"}:
            return
        stray, self._still = self._still, False
        prompts = None
        try:
            # A deletion leaves what remains where it is; any other edit is on the shown slice.
            plane = self._plane if action == "removed" else self._shown()
            prompts = self._read(plane)
        except (ImageError, PromptError) as error:
            self.refused.emit(str(error))
        if prompts is None or stray:
            prompts, plane = self._prompts, self._plane
        self._take(prompts, plane)

    def _take(self, prompts: Prompts, plane: SlicePlane | None) -> None:
        self.show(prompts, plane)
        self.edited.emit(prompts, plane, True)

    def _read(self, plane: SlicePlane | None) -> Prompts | None:
        """What lies on a slice; None when the newest shape is thinner than a pixel."""
        box = None
        if self.box is not None and self.box.nshapes:
            vertices = np.asarray(self.box.data[-1])
            if lies_on(vertices, plane):
                box = box_of(vertices, plane, self._shape)
                if box is None:
                    return None
        if self.points is None:
            return Prompts(box=box)
        signs = self.points.features[_SIGN]
        points = tuple(
            point_of(coordinate, sign != _NEGATIVE, plane, self._shape)
            for coordinate, sign in zip(self.points.data, signs, strict=True)
            if lies_on(coordinate, plane)
        )
        return Prompts(box=box, points=points)


def _equal(some: list[NDArray[Any]], others: list[NDArray[Any]]) -> bool:
    return len(some) == len(others) and all(map(np.array_equal, some, others))
