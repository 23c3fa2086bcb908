"""What is sent to the backend: an image in a form it accepts, and the picture shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.core.protocol import ImageHeader, ImageRef, content_hash, is_volume

__all__ = ["Picture", "UploadImage"]

_KINDS: Final = "buif"
_MAX_SIDE: Final = 65535


def _check(array: NDArray[Any]) -> None:
    shape = array.shape
    if array.dtype.kind not in _KINDS:
        raise ImageError(
            f"The image has elements of type {array.dtype}; convert it to whole or real numbers."
        )
    if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[-1] != 3):
        raise ImageError(
            f"The image has the shape {shape}; give one slice or one volume, grey or RGB."
        )
    if array.size == 0 or max(shape) > _MAX_SIDE:
        raise ImageError(
            f"The image has the shape {shape}; each side must have 1 to {_MAX_SIDE} pixels."
        )
    # Part by part: the first one with a finite value ends the search.
    if array.dtype.kind == "f" and not any(np.isfinite(part).any() for part in array):
        raise ImageError("The image holds no finite value; check how it was made or loaded.")


def _wire_dtype(array: NDArray[Any]) -> np.dtype[Any]:
    """Smallest type of the wire that holds every value, else float32."""
    if array.dtype.kind == "f":
        return np.dtype(np.float32)
    if array.dtype.itemsize > 2:
        low, high = int(array.min()), int(array.max())
        for narrow in (np.int16, np.uint16):
            if np.iinfo(narrow).min <= low and high <= np.iinfo(narrow).max:
                return np.dtype(narrow)
        return np.dtype(np.float32)
    narrow_types = {"bool": np.uint8, "int8": np.int16}
    return np.dtype(narrow_types.get(array.dtype.name, array.dtype.name))


class UploadImage:
    """An image or volume that can be uploaded.

    Whole numbers are kept exactly if they fit 16 bits; wider ones and real numbers become
    32-bit floats. Conversion and hash are made when first needed and kept, so the array must
    not change afterwards; wrap it anew when it did.

    Parameters
    ----------
    array : array-like
        Shape (row, column), (row, column, 3), (slice, row, column) or
        (slice, row, column, 3).

    Raises
    ------
    ImageError
        When no engine could work on it: wrong shape, no numbers, nothing finite.
    """

    def __init__(self, array: ArrayLike) -> None:
        self._source: NDArray[Any] = np.asarray(array)
        _check(self._source)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self._source.shape

    @property
    def is_volume(self) -> bool:
        """Whether the array has slices."""
        return is_volume(self.shape)

    @cached_property
    def array(self) -> NDArray[Any]:
        """The values in an element type of the wire, C-contiguous."""
        with np.errstate(over="ignore"):  # beyond the range of float32 is infinite there
            return np.ascontiguousarray(self._source, dtype=_wire_dtype(self._source))

    @cached_property
    def sha256(self) -> str:
        """Content hash, the image's name on the server."""
        return content_hash(self.array)

    @property
    def header(self) -> ImageHeader:
        """How the server is to read the bytes."""
        return ImageHeader.model_validate({"dtype": self.array.dtype.name, "shape": self.shape})


@dataclass(frozen=True)
class Picture:
    """One displayed picture: an image, a slice of it, and its grey window.

    Attributes
    ----------
    image : UploadImage
        The image or volume.
    plane : SlicePlane or None
        The slice of a volume; None for a 2D image.
    window : (float, float) or None
        Intensities shown as black and as white; None leaves it to the server.
    spacing : tuple of float
        Millimetres between voxels along (slice, row, column).

    Raises
    ------
    ImageError
        When the image has no such slice, or is a volume and no slice is named.
    """

    image: UploadImage
    plane: SlicePlane | None = None
    window: tuple[float, float] | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse a slice that does not fit the image."""
        if self.plane is None:
            if self.image.is_volume:
                raise ImageError("The image is a volume; say which slice is meant.")
        elif not self.image.is_volume:
            raise ImageError("The image is two-dimensional; it has no slices to choose from.")
        else:
            self.plane.selector(self.image.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(row, column) of the slice."""
        sides = list(self.image.shape[: 3 if self.image.is_volume else 2])
        if self.plane is not None:
            del sides[self.plane.axis]
        return sides[0], sides[1]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.shape[1]

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def ref(self) -> ImageRef:
        """How a request names the picture; hashes the image the first time.

        Raises
        ------
        ImageError
            When window or spacing are not finite, or a spacing is not positive.
        """
        try:
            return ImageRef(
                sha256=self.image.sha256,
                plane=self.plane,
                window=self.window,
                spacing=self.spacing,
            )
        except ValidationError as error:
            place = str(error.errors()[0]["loc"][0])
            raise ImageError(
                f"The image's {place} cannot be used ({getattr(self, place)}); set it to finite "
                "numbers, spacings above zero."
            ) from None
