"""What an image layer of napari says about its slice on show, its window and its geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel  # type: ignore[import-untyped]
from napari.layers import Image, Layer  # type: ignore[import-untyped]
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.gui.placing import grid_of, placement
from napari_medreasoner.gui.target import Geometry
from napari_medreasoner.imaging.volume import Volume
from napari_medreasoner.imaging.window import default_window

__all__ = [
    "METADATA_KEY",
    "LayerNotes",
    "LayerTuple",
    "bring_into_view",
    "geometry_of",
    "mask_metadata",
    "notes_of",
    "show_slice",
    "shown_plane",
    "volume_layer",
    "window_of",
]

_INVERTED: Final = "gray_r"
METADATA_KEY: Final = "medreasoner"
"""Key of `LayerNotes` in an image layer's metadata, and of `Geometry` in a mask layer's."""


@dataclass(frozen=True, slots=True)
class LayerNotes:
    """What this plugin's own reader knows about a layer it made.

    Attributes
    ----------
    volume : Volume
        As read from the file.
    question, modality : str
        What is to be asked, and of what kind of image.
    slice_index : int or None
        The axial slice to begin with.
    """

    volume: Volume
    question: str = ""
    modality: str = ""
    slice_index: int | None = None


LayerTuple = tuple[Any, dict[str, Any], str]
"""Data, options and kind of a layer, as napari takes it from a reader or a sample."""


def volume_layer(notes: LayerNotes) -> LayerTuple:
    """Return an image as a layer: in its place and size, shown in the window it asks for."""
    volume = notes.volume
    axes = 3 if volume.is_volume else 2
    options: dict[str, Any] = {
        "name": volume.name,
        "rgb": volume.is_rgb,
        "metadata": {METADATA_KEY: notes},
        **placement(volume.grid, axes),
    }
    if not volume.is_rgb:
        low, high = sorted(default_window(volume))
        # napari refuses limits that are equal, as those of a flat image are.
        options["contrast_limits"] = low, high if high > low else low + 1
        options["colormap"] = _INVERTED if volume.inverted else "gray"
    return volume.array, options, "image"


def notes_of(layer: Image) -> LayerNotes | None:
    """Return our notes on a layer, if it is ours and its data still has the noted shape."""
    notes = layer.metadata.get(METADATA_KEY)
    if isinstance(notes, LayerNotes) and notes.volume.array.shape == layer.data.shape:
        return notes
    return None


def mask_metadata(image: Image) -> dict[str, Any]:
    """Return what a mask over an image of ours needs to be saved without the image."""
    return {METADATA_KEY: geometry_of(image)} if notes_of(image) else {}


def shown_plane(viewer: ViewerModel, layer: Image) -> SlicePlane | None:
    """Return the slice of a layer on show; None for a 2D image.

    Raises
    ------
    ImageError
        When the layer is no single picture or volume, or none of its slices is on show.
    """
    name = layer.name
    if layer.multiscale:
        raise ImageError(f'"{name}" is a multiscale image; open one of its levels on its own.')
    if layer.ndim == 2:
        return None
    if layer.ndim != 3:
        raise ImageError(
            f'"{name}" has {layer.ndim} dimensions; split it into single volumes (right-click on '
            "the layer, Split Stack)."
        )
    if viewer.dims.ndisplay == 3:
        raise ImageError("napari shows the volume in 3D; switch to 2D to choose a slice.")
    ahead = viewer.dims.ndim - 3
    hidden = [axis for axis in range(3) if axis + ahead not in viewer.dims.displayed]
    if len(hidden) != 1:
        raise ImageError(f'napari shows no slice of "{name}"; show two of its axes.')
    position = layer.world_to_data(viewer.dims.point[ahead:] * _unit_factors(viewer, layer))
    index = round(position[hidden[0]])
    if not 0 <= index < layer.data.shape[hidden[0]]:
        raise ImageError(f'The slice on show lies outside "{name}"; scroll to one of its slices.')
    return SlicePlane(axis=hidden[0], index=index)


def show_slice(viewer: ViewerModel, layer: Image, plane: SlicePlane) -> None:
    """Turn the viewer to a slice of a volume."""
    position = np.zeros(layer.ndim)
    position[plane.axis] = plane.index
    world = layer.data_to_world(position) / _unit_factors(viewer, layer)
    viewer.dims.set_point(viewer.dims.ndim - layer.ndim + plane.axis, world[plane.axis])


def bring_into_view(viewer: ViewerModel, layer: Image) -> None:
    """Turn slider and camera to a layer that lies elsewhere than what is on show.

    Images of different patients, or parts of one, need not overlap in the patient's millimetres.
    """
    ahead = viewer.dims.ndim - layer.ndim
    factors = _unit_factors(viewer, layer)
    low, high = layer.extent.world / factors
    middle = layer.data_to_world(np.array(layer.data.shape[: layer.ndim]) // 2) / factors
    for axis in viewer.dims.not_displayed:
        own = axis - ahead
        if own >= 0 and not low[own] <= viewer.dims.point[axis] <= high[own]:
            viewer.dims.set_point(axis, middle[own])
    shown = [axis - ahead for axis in viewer.dims.displayed]
    if min(shown) < 0:
        return
    centre = np.array(viewer.scene.camera.center[-len(shown) :])
    if ((centre < low[shown]) | (centre > high[shown])).any():
        viewer.scene.camera.center = tuple(middle[shown])


def _unit_factors(viewer: ViewerModel, layer: Image) -> NDArray[np.float64]:
    """For each axis, how many of the layer's units make one of those the viewer counts in."""
    shared = viewer.layers.extent.units
    if shared is None:  # units that do not go together; napari then takes them for equal
        return np.ones(layer.ndim)
    pairs = zip(shared[-layer.ndim :], layer.units, strict=True)
    return np.array([float((1 * ours).to(own).magnitude) for ours, own in pairs])


def window_of(layer: Image) -> tuple[float, float] | None:
    """Return what is black and what is white, so that the model sees what the user sees.

    None for RGB.
    """
    if layer.rgb:
        return None
    low, high = (float(limit) for limit in layer.contrast_limits)
    return (high, low) if layer.colormap.name == _INVERTED else (low, high)


def geometry_of(layer: Layer) -> Geometry:
    """Return where the voxels of an image or labels layer lie, and what we know of their file.

    A layer of our own lies where its file says; any other where napari shows it.

    Raises
    ------
    ImageError
        As `grid_of`.
    """
    noted = layer.metadata.get(METADATA_KEY)
    if isinstance(noted, LayerNotes):
        volume = noted.volume
        noted = Geometry(volume.grid, volume.source, volume.frames)
    shape = (1, *layer.data.shape[: layer.ndim])[-3:]
    if isinstance(noted, Geometry) and noted.grid.shape == shape:
        return noted
    return Geometry(grid_of(layer))
