"""Saving a labels layer on the grid of its image's file; napari's writer contribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, overload

import napari  # type: ignore[import-untyped]
import numpy as np
from napari.layers import Labels, Layer  # type: ignore[import-untyped]
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.gui.images import METADATA_KEY, geometry_of, notes_of
from napari_medreasoner.gui.target import Geometry
from napari_medreasoner.gui.waiting import main_window, wait_for
from napari_medreasoner.imaging import Segment, Volume, write_segments

__all__ = ["write_labels"]

_PLACE: Final = (
    "scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "metadata", "name",
)  # fmt: skip


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer, each of its values as one finding.

    The voxels go back onto the grid of the file, when the layer is a mask of ours or lies over
    an image of ours; else they lie in the patient where napari shows them.

    Parameters
    ----------
    path : str
        Ends in one of `SEGMENT_SUFFIXES`.
    data : array-like of int, shape (row, column) or (slice, row, column)
        The labels; 0 is none.
    attributes : dict
        As napari gives them: the layer's transform, metadata and name.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    ExportError
        When there is no label, the values are no labels, or writing fails; a file that was
        there before is unchanged.
    ImageError
        When the layer is no picture and no volume.
    """
    kind = getattr(data, "dtype", np.dtype(object)).kind
    if kind not in "bui" or attributes.get("multiscale"):
        raise ExportError(
            f'"{attributes.get("name")}" holds no labels but {getattr(data, "dtype", "levels")}; '
            "convert it to whole numbers first."
        )
    options = {key: attributes[key] for key in _PLACE if key in attributes}
    layer = Labels(data.astype(np.uint8) if kind == "b" else data, **options)
    place = _image_below(layer) or geometry_of(layer)
    wait_for(
        lambda: _write(Path(path), layer, place),
        f"Saving {Path(path).name}…",
        main_window(),
        can_cancel=False,
    )
    return [path]


def _image_below(layer: Labels) -> Geometry | None:
    """Geometry of an image of ours that a layer without notes of its own lies over exactly."""
    viewer = napari.current_viewer()
    if viewer is None or METADATA_KEY in layer.metadata:
        return None
    for image in viewer.layers:
        if notes_of(image) and _same_voxels(image, layer):
            return geometry_of(image)
    return None


def _same_voxels(image: Layer, layer: Labels) -> bool:
    spatial = image.data.shape[: image.ndim]
    corners = [np.zeros(len(spatial)), *np.diag(np.array(spatial) - 1)]
    return (
        spatial == layer.data.shape
        and image.units == layer.units
        and all(
            np.allclose(image.data_to_world(place), layer.data_to_world(place), atol=1e-6)
            for place in corners
        )
    )


def _write(path: Path, layer: Labels, place: Geometry) -> None:
    labels = np.asarray(layer.data)
    values = np.unique(labels)
    if values.size and values[0] < 0:
        raise ExportError(f'"{layer.name}" holds labels below zero; number them from 1.')
    volume = Volume(labels, place.grid, layer.name, source=place.file, frames=place.frames)
    write_segments(path, _Labelled(labels, values[values > 0]), volume)


class _Labelled(Sequence[Segment]):
    """A finding for each value of a label map, made when it is asked for.

    All masks at once would take as many times the memory of the labels as there are values.
    """

    def __init__(self, labels: NDArray[Any], values: NDArray[Any]) -> None:
        self._labels = labels
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> Segment: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Segment]: ...
    def __getitem__(self, index: int | slice) -> Segment | Sequence[Segment]:
        if isinstance(index, slice):
            return _Labelled(self._labels, self._values[index])
        value = int(self._values[index])
        return Segment(self._labels == value, value, label=f"Label {value}")

    def __iter__(self) -> Iterator[Segment]:
        return (self[index] for index in range(len(self)))
