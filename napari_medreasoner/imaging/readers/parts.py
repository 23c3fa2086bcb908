"""What can be opened out of a file or folder that holds several images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Part"]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One image of several, for the user to choose by.

    Attributes
    ----------
    number : int
        From 1: `part` of `read_image`.
    description : str
        As in a SeriesDescription; it can name a patient, so keep it out of logs and file names.
    modality : str
        As in "CT"; empty when not known.
    slices : int
        Number of slices.
    problem : str
        Why the slices make no volume, in a sentence; empty when they do. Its slices can still
        be opened one by one.
    thumbnail : ndarray of uint8, shape (row, column, 3), or None
        Of the middle slice, at most 96 pixels a side; None when it cannot be decoded.
    """

    number: int
    description: str
    modality: str
    slices: int
    problem: str = ""
    thumbnail: NDArray[np.uint8] | None = field(default=None, repr=False)
