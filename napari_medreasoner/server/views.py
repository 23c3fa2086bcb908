"""Pictures of uploaded images, as engines see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.core.protocol import ImageRef, is_volume
from napari_medreasoner.imaging.window import to_rgb, to_uint8

__all__ = ["Pictures", "View", "picture_of", "slice_of", "view_key"]

_STATES: Final = 8


@dataclass(slots=True)
class View:
    """A displayed picture and what the segmenter made of it.

    Attributes
    ----------
    rgb : ndarray of uint8, shape (row, column, 3)
        The picture.
    embedding : Any
        From `Segmenter.set_image`.
    states : dict
        `Segmentation.state` of the last mask of each client.
    """

    rgb: NDArray[np.uint8]
    embedding: Any
    states: dict[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """What a cache counts."""
        return self.rgb.nbytes + int(getattr(self.embedding, "nbytes", self.rgb.nbytes))

    def keep(self, client: str | None, state: Any) -> None:
        """Remember a client's last state; the oldest of many is forgotten."""
        if client is None or state is None:
            return
        self.states.pop(client, None)
        self.states[client] = state
        if len(self.states) > _STATES:
            del self.states[next(iter(self.states))]


class Pictures(Sequence[NDArray[np.uint8]]):
    """The slices of a volume along an axis as displayed, each made when it is asked for."""

    def __init__(self, volume: NDArray[Any], axis: int, window: tuple[float, float] | None) -> None:
        self._slices = np.moveaxis(volume, axis, 0)
        self._window = window

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: Any) -> Any:
        return np.ascontiguousarray(to_rgb(to_uint8(self._slices[index], self._window)))


def slice_of(image: NDArray[Any], plane: SlicePlane | None) -> NDArray[Any]:
    """Cut the picture out of an image, as a view.

    Raises
    ------
    ImageError
        When a volume comes without a plane, or a two-dimensional image with one.
    """
    if is_volume(image.shape) != (plane is not None):
        raise ImageError(
            "The image is a volume; say which slice is meant."
            if plane is None
            else "The image is two-dimensional and has no slices; ask about it without one."
        )
    return image if plane is None else plane.cut(image)


def picture_of(image: NDArray[Any], ref: ImageRef) -> NDArray[np.uint8]:
    """Make the picture (row, column, 3) that a reference names."""
    return np.ascontiguousarray(to_rgb(to_uint8(slice_of(image, ref.plane), ref.window)))


def view_key(ref: ImageRef) -> tuple[str, SlicePlane | None, tuple[float, float] | None]:
    """What distinguishes one view from another."""
    return (ref.sha256, ref.plane, ref.window)
