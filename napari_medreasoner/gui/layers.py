"""The controller's view onto napari: which image is chosen, and the layers over each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel  # type: ignore[import-untyped]
from napari.layers import Image  # type: ignore[import-untyped]
from numpy.typing import NDArray
from psygnal import Signal

from napari_medreasoner.core.errors import ImageError, MedReasonerError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.gui.images import geometry_of, shown_plane, window_of
from napari_medreasoner.gui.overlays import MaskOverlay, PromptOverlay
from napari_medreasoner.gui.target import ImageSource, Target

__all__ = ["LayerView"]


@dataclass
class _Shown:
    """An image layer with what lies over it."""

    layer: Image
    source: ImageSource
    prompts: PromptOverlay
    mask: MaskOverlay


class LayerView:
    """Layers of all findings in one viewer; a `View` of the controller.

    Parameters
    ----------
    viewer : ViewerModel
        A napari viewer.
    """

    edited = Signal(object, object, object, bool)
    """Source, prompts, plane, and whether the edit is complete."""
    painting = Signal(object)
    painted = Signal(object, object)
    """Source, and the slice painted on (None: perhaps several)."""
    undo = Signal()
    redo = Signal()
    refused = Signal(str)
    listed = Signal()
    """The viewer's list of layers changed."""
    chosen = Signal(object)
    """The image layer that was chosen."""
    looked = Signal()
    """The slice on show, or how it is shown, may have changed."""
    forgotten = Signal(object)
    """The source of an image that is gone, or whose data is."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._all: dict[ImageSource, _Shown] = {}
        self._image: Image | None = None
        events = viewer.layers.events
        events.removed.connect(self._on_removed)
        for change in (events.inserted, events.removed, events.renamed):
            change.connect(self._on_listed)
        for change in self._looks():
            change.connect(self._on_look)

    def _looks(self) -> tuple[Any, ...]:
        """Events of the viewer that show another slice."""
        events = self._viewer.dims.events
        return events.point, events.order, events.ndisplay

    @property
    def source(self) -> ImageSource | None:
        """The chosen image's data, as far as an engine could take it; None without one."""
        return None if self._image is None else self._of(self._image).source

    def images(self) -> list[Image]:
        """Return the image layers to choose from."""
        return [layer for layer in self._viewer.layers if isinstance(layer, Image)]

    def choose(self, image: Image | None) -> None:
        """Choose the image layer to be asked about."""
        if image is not self._image:
            self._image = image
            self.chosen.emit(image)
            self.looked.emit()

    def shown(self) -> Target:
        """Return the chosen image and the slice of it on show; see `View`."""
        if self._image is None:
            raise ImageError("There is no image; open one, or choose File > Open Sample.")
        plane = shown_plane(self._viewer, self._image)
        return self.target(self._of(self._image).source, plane)

    def target(self, source: ImageSource, plane: SlicePlane | None) -> Target:
        """Return a slice of an image; see `View`."""
        layer = self._all[source].layer
        return Target(source, geometry_of(layer), plane, window_of(layer))

    @property
    def window(self) -> tuple[float, float] | None:
        """Intensities that the chosen image shows as black and white; None for RGB or none."""
        return None if self._image is None else window_of(self._image)

    def set_window(self, black: float, white: float) -> None:
        """Show the chosen image through another window, the other way round if it is inverted."""
        if self._image is not None and not self._image.rgb:
            self._image.contrast_limits = sorted((black, white))

    def show_prompts(self, source: ImageSource, prompts: Prompts, plane: SlicePlane | None) -> None:
        """Draw box and points; see `View`."""
        self._all[source].prompts.show(prompts, plane)

    def show_mask(self, source: ImageSource, pixels: NDArray[np.uint8]) -> None:
        """Draw the mask; see `View`."""
        self._all[source].mask.show(pixels)

    def start_box(self) -> None:
        """Let the user draw the box on the chosen image."""
        if (overlay := self._prompts_to_edit()) is not None:
            overlay.start_box()

    def start_points(self, *, positive: bool) -> None:
        """Let the user add points of one sign on the chosen image."""
        if (overlay := self._prompts_to_edit()) is not None:
            overlay.start_points(positive=positive)

    def flip_selected(self) -> None:
        """Change the sign of the selected points of the chosen image."""
        if (overlay := self._prompts_to_edit()) is not None:
            overlay.flip_selected()

    def _prompts_to_edit(self) -> PromptOverlay | None:
        try:
            return self._all[self.shown().source].prompts
        except MedReasonerError as error:
            self.refused.emit(str(error))
            return None

    def _of(self, image: Image) -> _Shown:
        """What belongs to an image; new data in the same layer is a new image."""
        for item in list(self._all.values()):
            if item.layer is image:
                if item.source.data is image.data:
                    return item
                self._forget(item)
        source = ImageSource(image.name, image.data, rgb=image.rgb)
        prompts = PromptOverlay(
            self._viewer, image, source.shape, lambda: shown_plane(self._viewer, image)
        )
        item = _Shown(image, source, prompts, MaskOverlay(self._viewer, image))
        self._connect(item)
        self._all[source] = item
        return item

    def _connect(self, item: _Shown) -> None:
        def edited(prompts: Prompts, plane: SlicePlane | None, final: bool) -> None:
            self.choose(item.layer)
            self.edited.emit(item.source, prompts, plane, final)

        def painting() -> None:
            self.choose(item.layer)
            self.painting.emit(item.source)

        def painted(through: bool) -> None:
            self.painted.emit(item.source, self._painted_plane(item.layer, through))

        item.prompts.edited.connect(edited)
        item.prompts.refused.connect(self.refused)
        item.mask.undo.connect(self.undo)
        item.mask.redo.connect(self.redo)
        item.mask.painting.connect(painting)
        item.mask.painted.connect(painted)
        for change in _changes(item.layer):
            change.connect(self._on_look)

    def close(self) -> None:
        """Stop listening to the viewer and to the layers, which stay."""
        events = self._viewer.layers.events
        events.removed.disconnect(self._on_removed)
        for change in (events.inserted, events.removed, events.renamed):
            change.disconnect(self._on_listed)
        for change in self._looks():
            change.disconnect(self._on_look)
        for item in list(self._all.values()):
            self._forget(item)

    def _on_listed(self, _event: Any) -> None:
        self.listed.emit()

    def _on_look(self, _event: Any) -> None:
        self.looked.emit()

    def _on_removed(self, event: Any) -> None:
        for item in list(self._all.values()):
            if item.layer is event.value:
                self._forget(item)

    def _forget(self, item: _Shown) -> None:
        del self._all[item.source]
        item.prompts.close()
        item.mask.close()
        for change in _changes(item.layer):
            change.disconnect(self._on_look)
        self.forgotten.emit(item.source)

    def _painted_plane(self, layer: Image, through: bool) -> SlicePlane | None:
        if through:
            return None
        try:
            return shown_plane(self._viewer, layer)
        except ImageError:
            return None


def _changes(image: Image) -> tuple[Any, ...]:
    """Events of an image that change how its slice looks."""
    events = image.events
    return events.data, events.contrast_limits, events.colormap
