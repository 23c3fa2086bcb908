"""What can be measured of a target in its image: place, size, shape and brightness."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from napari_medreasoner.core.geometry import Box
from napari_medreasoner.core.masks import box_of_mask

__all__ = ["Appearance", "measure"]

_RING: Final = 0.25
"""Width of the surroundings, as a share of the radius of a disc of the target's area."""

_THINNEST_RING: Final = 3.0


@dataclass(frozen=True, slots=True)
class Appearance:
    """Measures of one target.

    Attributes
    ----------
    centre : (float, float)
        x and y of the mask's centre of mass, as shares of the image's width and height.
    area : float
        Share of the image that the mask covers.
    elongation : float
        Standard deviation along the longest axis over that across it, at least 1.
    tilt : float
        Angle of the longest axis from the horizontal, in degrees from 0 to 90.
    solidity : float
        Area over the area of the convex hull.
    contrast : float or None
        Mean brightness inside less that of the ring around, in grey levels of 255; None where
        the target fills the image.
    """

    centre: tuple[float, float]
    area: float
    elongation: float
    tilt: float
    solidity: float
    contrast: float | None


def measure(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Appearance:
    """Measure a target.

    Parameters
    ----------
    image : ndarray of uint8, shape (row, column, 3)
        Grey levels of colours are their means.
    mask : ndarray of bool, shape (row, column)
        Of the target.

    Raises
    ------
    ImageError
        When the mask is empty.
    """
    box = box_of_mask(mask)
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    elongation, tilt = _axes(rows, columns)
    return Appearance(
        centre=(float((columns.mean() + 0.5) / width), float((rows.mean() + 0.5) / height)),
        area=rows.size / mask.size,
        elongation=elongation,
        tilt=tilt,
        solidity=rows.size / _hull_area(mask),
        contrast=_contrast(image, mask, box),
    )


def _axes(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[float, float]:
    """Elongation and tilt; a pixel has the variance of a unit square, 1/12."""
    spread = np.cov(np.stack([columns, rows]), bias=True) + np.eye(2) / 12
    values, vectors = np.linalg.eigh(spread)
    across, along = np.abs(vectors[:, 1])
    return float(np.sqrt(values[1] / values[0])), float(np.degrees(np.arctan2(along, across)))


def _hull_area(mask: NDArray[np.bool_]) -> float:
    """Area of the convex hull of the pixels' corners; the ends of the rows have the same hull."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    columns = np.concatenate([first, first, last, last])
    heights = np.tile(np.concatenate([rows, rows + 1]), 2)
    return float(ConvexHull(np.stack([columns, heights], axis=1)).volume)


def _contrast(image: NDArray[np.uint8], mask: NDArray[np.bool_], box: Box) -> float | None:
    reach = max(_THINNEST_RING, _RING * float(np.sqrt(mask.sum() / np.pi)))
    height, width = mask.shape
    near = box.padded(ceil(reach)).clipped(width, height).slices
    grey, inside = image[near].mean(axis=2), mask[near]
    ring = (ndimage.distance_transform_edt(~inside) <= reach) & ~inside
    if not ring.any():
        return None
    return float(grey[inside].mean() - grey[ring].mean())
