"""A finding as it leaves: its mask, what it is called, and the coded terms for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["TISSUE", "Segment", "Term"]


class Term(NamedTuple):
    """A coded concept: value, coding scheme and meaning (DICOM PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


TISSUE: Final = Term("85756007", "SCT", "Tissue")
"""What a finding is when nothing more is known (category and type alike)."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One finding.

    Attributes
    ----------
    mask : ndarray of bool
        Shape of the spatial axes of the image's array.
    value : int
        In a label map, at least 1; a DICOM segmentation numbers its segments itself.
    label : str
        For the reader, at most 64 characters.
    category, kind : Term
        SegmentedPropertyCategory and SegmentedPropertyType of DICOM PS3.3 C.8.20.2.
    side : Term or None
        Left or right: the SegmentedPropertyTypeModifier; None where it has no side.
    algorithm : str
        Names and versions of the models behind it; empty when drawn by hand.
    automatic : bool
        The models made it alone: nobody drew, moved or painted anything.
    """

    mask: NDArray[np.bool_] = field(repr=False)
    value: int = 1
    label: str = "Finding"
    category: Term = TISSUE
    kind: Term = TISSUE
    side: Term | None = None
    algorithm: str = ""
    automatic: bool = False
