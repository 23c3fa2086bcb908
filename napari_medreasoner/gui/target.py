"""Which picture is meant: an image, the slice of it on show, and how it is displayed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.geometry import Grid, SlicePlane
from napari_medreasoner.imaging.volume import SourceFrame, SourceGrid, Volume

__all__ = ["Geometry", "ImageSource", "Target"]


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Where the voxels of a layer lie, and the file they came from.

    Attributes
    ----------
    grid : Grid
        Of the layer's array.
    file : SourceGrid or None
        The grid of the file, when we read it.
    frames : tuple of SourceFrame
        The DICOM slices of that grid; empty when not from DICOM.
    """

    grid: Grid
    file: SourceGrid | None = None
    frames: tuple[SourceFrame, ...] = ()


class ImageSource:
    """The data of one image; loaded and hashed once, however often it is asked about.

    Parameters
    ----------
    name : str
        As the user knows it.
    data : array-like
        Grey or RGB(A), 2D or 3D; may be lazy.
    rgb : bool
        Whether the last axis is colour.
    """

    def __init__(self, name: str, data: Any, *, rgb: bool) -> None:
        self.name = name
        self.data = data
        self.rgb = rgb
        self.shape: tuple[int, ...] = tuple(data.shape[:-1] if rgb else data.shape)
        self._lock = threading.Lock()
        self._upload: UploadImage | None = None

    def array(self) -> NDArray[Any]:
        """The data without an alpha channel. May read from disk: not for the Qt thread."""
        array: NDArray[Any] = np.asarray(self.data)
        return array[..., :3] if self.rgb else array

    def slice(self, plane: SlicePlane | None) -> NDArray[Any]:
        """One slice, or a 2D image, and no more of the data. Not for the Qt thread."""
        part = self.data if plane is None else self.data[plane.selector(self.shape)]
        array: NDArray[Any] = np.asarray(part)
        return array[..., :3] if self.rgb else array

    def upload(self) -> UploadImage:
        """The data as it is sent, hashed. Takes time: not for the Qt thread."""
        with self._lock:
            if self._upload is None:
                self._upload = UploadImage(np.ascontiguousarray(self.array()))
            return self._upload


@dataclass(frozen=True, slots=True)
class Target:
    """What a question or a correction is about.

    Attributes
    ----------
    source : ImageSource
        The image.
    geometry : Geometry
        Where its voxels lie, and the file they came from.
    plane : SlicePlane or None
        The slice on show; None for a 2D image.
    window : (float, float) or None
        Intensities shown as black and as white; None for RGB.
    """

    source: ImageSource
    geometry: Geometry
    plane: SlicePlane | None = None
    window: tuple[float, float] | None = None

    def picture(self) -> Picture:
        """As the client sends it. Takes time on first use: not for the Qt thread."""
        return Picture(
            image=self.source.upload(),
            plane=self.plane,
            window=self.window,
            spacing=self.geometry.grid.spacing,
        )

    def volume(self) -> Volume:
        """As a mask is exported on it. May read from disk: not for the Qt thread."""
        place = self.geometry
        return Volume(
            self.source.array(),
            place.grid,
            self.source.name,
            source=place.file,
            frames=place.frames,
        )
