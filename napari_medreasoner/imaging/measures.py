"""How large a mask is, in the patient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from napari_medreasoner.core.geometry import Grid

__all__ = ["Measures", "measure"]


class Measures(BaseModel):
    """Size of one mask; millimetres are None where the image's geometry is not known.

    Attributes
    ----------
    voxels : int
        Number of voxels (pixels in a 2D image).
    volume_ml : float or None
        Of a mask in a volume.
    area_mm2 : float or None
        Of the slice with the largest area.
    diameter_mm : float or None
        Largest distance between centres of voxels of one slice, plus one pixel: the long
        axis that RECIST 1.1 measures in the axial plane.
    """

    model_config = ConfigDict(frozen=True)

    voxels: int
    volume_ml: float | None = None
    area_mm2: float | None = None
    diameter_mm: float | None = None


def measure(mask: NDArray[np.bool_], grid: Grid) -> Measures:
    """Measure a mask of shape (row, column) or (slice, row, column) on its grid.

    Areas and diameters are those of axial slices: array axis 0. Rows and columns need not be at
    right angles.
    """
    voxels = int(np.count_nonzero(mask))
    if not grid.known:
        return Measures(voxels=voxels)
    slices = mask if mask.ndim == 3 else mask[None]
    # (row, column) to millimetres in the plane of the slices, whichever way that lies.
    plane = np.linalg.qr(grid.affine[:3, 1::-1]).R
    pixel = float(np.mean(grid.spacing[1:]))
    largest = int(np.count_nonzero(slices, axis=(1, 2)).max(initial=0))
    return Measures(
        voxels=voxels,
        volume_ml=voxels * grid.voxel_volume / 1000 if mask.ndim == 3 else None,
        area_mm2=largest * float(abs(np.linalg.det(plane))),
        diameter_mm=max(
            (_diameter(one, plane) + pixel for one in slices if one.any()), default=0.0
        ),
    )


def _diameter(mask: NDArray[np.bool_], plane: NDArray[np.float64]) -> float:
    places: NDArray[Any] = np.argwhere(mask) @ plane.T
    try:
        places = places[ConvexHull(places).vertices]
    except QhullError:  # a line or a single pixel: few enough to compare all
        places = places[[*places.argmin(axis=0), *places.argmax(axis=0)]]
    return float(pdist(places).max(initial=0.0))
