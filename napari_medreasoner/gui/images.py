"""What an image layer of napari says about its slice on show, its window and its geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from napari.components import ViewerModel  # type: ignore[import-untyped]
from napari.layers import Image  # type: ignore[import-untyped]
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import Grid, SlicePlane
from napari_medreasoner.imaging.volume import SourceGrid, Volume
from napari_medreasoner.imaging.window import default_window

__all__ = [
    "METADATA_KEY",
    "LayerNotes",
    "LayerTuple",
    "geometry_of",
    "notes_of",
    "shown_plane",
    "volume_layer",
    "window_of",
]

_INVERTED: Final = "gray_r"
METADATA_KEY: Final = "medreasoner"
"""Key of `LayerNotes` in a layer's metadata."""


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
    }
    if not volume.is_rgb:
        options["contrast_limits"] = sorted(default_window(volume))
        options["colormap"] = _INVERTED if volume.inverted else "gray"
    if volume.grid.known:
        options["scale"] = volume.grid.spacing[-axes:]
        options["units"] = ("mm",) * axes
    return volume.array, options, "image"


def notes_of(layer: Image) -> LayerNotes | None:
    """Return our notes on a layer, if it is ours and its data still has the noted shape."""
    notes = layer.metadata.get(METADATA_KEY)
    if isinstance(notes, LayerNotes) and notes.volume.array.shape == layer.data.shape:
        return notes
    return None


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
    position = layer.world_to_data(viewer.dims.point[ahead:])
    index = round(position[hidden[0]])
    if not 0 <= index < layer.data.shape[hidden[0]]:
        raise ImageError(f'The slice on show lies outside "{name}"; scroll to one of its slices.')
    return SlicePlane(axis=hidden[0], index=index)


def window_of(layer: Image) -> tuple[float, float] | None:
    """Return what is black and what is white, so that the model sees what the user sees.

    None for RGB.
    """
    if layer.rgb:
        return None
    low, high = (float(limit) for limit in layer.contrast_limits)
    return (high, low) if layer.colormap.name == _INVERTED else (low, high)


def geometry_of(layer: Image) -> tuple[Grid, SourceGrid | None]:
    """Return where the voxels lie, and the file's own grid when we read the file.

    For a layer made by others, napari's world is taken as it is displayed: columns towards
    the patient's left, rows towards posterior, slices towards superior.
    """
    notes = notes_of(layer)
    if notes is not None:
        return notes.volume.grid, notes.volume.source
    matrix = _data_to_world(layer)
    factors = [_millimetres(unit) for unit in layer.units]
    known = all(factor is not None for factor in factors)
    if known:
        matrix = np.diag([factor or 1.0 for factor in factors] + [1.0]) @ matrix
    if layer.ndim == 2:
        volume = np.eye(4)
        volume[1:, 1:] = matrix
        matrix = volume
    # From (slice, row, column) to (column, row, slice), then from LPS to RAS.
    reorder = np.array([2, 1, 0, 3])
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix[np.ix_(reorder, reorder)]
    spatial = layer.data.shape[:-1] if layer.rgb else layer.data.shape
    slices, rows, columns = (1, *spatial)[-3:]
    return Grid((slices, rows, columns), affine, known=known), None


def _data_to_world(layer: Image) -> NDArray[np.float64]:
    """Homogeneous matrix of the layer's whole transform, read off at the unit vectors."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), np.float64)
    matrix = np.eye(layer.ndim + 1)
    for axis, unit in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(unit)) - origin
    matrix[:-1, -1] = origin
    return matrix


def _millimetres(unit: Any) -> float | None:
    """Length of a unit in mm; None when it is no length, as a pixel."""
    return float((1 * unit).to("mm").magnitude) if unit.is_compatible_with("mm") else None
