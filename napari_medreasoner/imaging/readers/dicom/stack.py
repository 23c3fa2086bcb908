"""Where DICOM slices lie in the patient, and whether they make a regular volume.

Standard: DICOM PS3.3 C.7.6.2 (image plane) and C.7.6.16.2 (functional groups). Places are in
DICOM's patient space (LPS millimetres) until the affine, which is RAS as in `Grid`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.dicom.pixels import frames_of
from napari_medreasoner.imaging.readers.dicom.printing import (
    COARSEST_MM,
    even_stack,
    printed_units,
)
from napari_medreasoner.imaging.readers.dicom.values import frame_value, numbers

__all__ = ["Place", "Stack", "along", "places_of", "plain_affine", "stacked"]

POSITION_MM: Final = 0.01
"""Farthest a slice may lie from where an even stack has it, if it was not printed coarsely."""

DIRECTION: Final = 1e-4
"""Largest difference between direction cosines of slices that are taken as parallel."""

SHEAR: Final = 1e-3
"""Largest sine of the angle between the slice normal and the way from slice to slice."""

_ORTHONORMAL: Final = 1e-3
_SPACING_MM: Final = 1e-4
_ADVICE: Final = "open it as separate slices"
_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Place:
    """Where one slice lies, in LPS millimetres.

    Attributes
    ----------
    corner : ndarray of float64, shape (3,)
        Centre of the first pixel.
    across, down : ndarray of float64, shape (3,)
        Unit vectors along which the column index and the row index grow.
    spacing : (float, float)
        Millimetres between rows and between columns, in DICOM's order.
    depth : float
        Millimetres from this slice to the next, where there is no other to measure from.
    units : tuple of float
        Last decimal that the file prints of each coordinate of `corner`, mm; 0 when not known.
    """

    corner: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing: tuple[float, float]
    depth: float
    units: tuple[float, ...] = (0.0, 0.0, 0.0)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector at right angles to the slice."""
        normal = np.cross(self.across, self.down)
        return normal / np.linalg.norm(normal)

    def affine(self, step: NDArray[np.float64]) -> NDArray[np.float64]:
        """(column, row, slice) to RAS mm of a stack that starts here and goes on by `step`."""
        matrix = np.eye(4)
        matrix[:3, 0] = self.across * self.spacing[1]
        matrix[:3, 1] = self.down * self.spacing[0]
        matrix[:3, 2] = step
        matrix[:3, 3] = self.corner
        return _TO_RAS @ matrix


class Stack(NamedTuple):
    """Slices in the order of a volume.

    Attributes
    ----------
    order : list of int
        Indices of the slices from the first of the volume to the last.
    affine : ndarray of float64, shape (4, 4)
        (column, row, slice) to RAS millimetres.
    warning : str
        What the user should know, in a sentence; or empty.
    """

    order: list[int]
    affine: NDArray[np.float64]
    warning: str = ""


def places_of(ds: Dataset, name: str, *, lenient: bool = False) -> tuple[Place | None, ...]:
    """Place of each frame of a file; None where the file does not say.

    Parameters
    ----------
    ds : Dataset
        With or without its pixels.
    name : str
        File name for messages.
    lenient : bool
        Take more than one stack or time, for frames that are not made to one volume.

    Raises
    ------
    ReadError
        When the geometry contradicts itself, or the frames are more than one stack or time.
    """
    count = frames_of(ds)
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups is not None and len(groups) != count:
        raise ReadError(f"{name} describes {len(groups)} of {count} frames; the file is damaged.")
    if count > 1 and not groups:
        return (None,) * count
    if groups and not lenient:
        _refuse_several(ds, count, name)
    return tuple(_place(ds, frame, name) for frame in range(count))


def _refuse_several(ds: Dataset, count: int, name: str) -> None:
    for keyword, what in (("StackID", "stacks"), ("TemporalPositionIndex", "points in time")):
        found = {str(frame_value(ds, i, "FrameContentSequence", keyword)) for i in range(count)}
        if len(found) > 1:
            raise ReadError(
                f"{name} holds {len(found)} {what}, where one volume is read; {_ADVICE}."
            )


def _place(ds: Dataset, frame: int, name: str) -> Place | None:
    spacing = _spacing(ds, frame, name)
    position = frame_value(ds, frame, "PlanePositionSequence", "ImagePositionPatient")
    corner = numbers(position, 3, "an ImagePositionPatient", name)
    directions = numbers(
        frame_value(ds, frame, "PlaneOrientationSequence", "ImageOrientationPatient"),
        6,
        "an ImageOrientationPatient",
        name,
    )
    if corner is None or directions is None:
        return None
    if spacing is None:
        raise ReadError(f"{name} gives a place but no usable PixelSpacing; repair its header.")
    across, down = np.array(directions[:3]), np.array(directions[3:])
    lengths = np.linalg.norm(across) - 1, np.linalg.norm(down) - 1, across @ down
    if np.abs(lengths).max() > _ORTHONORMAL:
        raise ReadError(
            f"{name} gives an ImageOrientationPatient that is not two unit vectors at right "
            "angles; repair its header."
        )
    depth = _depth(ds, frame, name)
    return Place(np.array(corner), across, down, spacing, depth, printed_units(position))


def _spacing(ds: Dataset, frame: int, name: str) -> tuple[float, float] | None:
    value = frame_value(ds, frame, "PixelMeasuresSequence", "PixelSpacing")
    spacing = numbers(value, 2, "a PixelSpacing", name)
    if spacing is None:
        return None
    return (spacing[0], spacing[1]) if min(spacing) > 0 else None


def _depth(ds: Dataset, frame: int, name: str) -> float:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = frame_value(ds, frame, "PixelMeasuresSequence", keyword)
        depth = numbers(value, 1, f"a {keyword}", name)
        if depth and depth[0] != 0:
            return abs(depth[0])
    return 1.0


def plain_affine(ds: Dataset, name: str) -> NDArray[np.float64]:
    """Affine of an image without a place: shown as stored, with its pixel sizes if it has them."""
    rows, columns = _spacing(ds, 0, name) or (1.0, 1.0)
    return np.diag([-columns, -rows, 1.0, 1.0])


def along(places: Sequence[Place]) -> list[int]:
    """Order of slices by their position along the normal of the first."""
    normal = places[0].normal
    return sorted(range(len(places)), key=lambda index: float(places[index].corner @ normal))


def stacked(places: Sequence[Place], name: str) -> Stack:
    """Order slices to a volume.

    Positions may differ by 0.01 mm from an even stack, direction cosines by 1e-4, and the stack
    may lean from the slice normal by 1e-3; positions printed with few decimals may be off by
    half a unit of the last, with a warning (see `even_stack`).

    Parameters
    ----------
    places : sequence of Place
        In any order.
    name : str
        File or folder name for messages.

    Raises
    ------
    ReadError
        When the slices are not parallel, of one pixel size, evenly spaced and straight above
        one another; names the reason and where.
    """
    first = places[0]
    if len(places) == 1:
        return Stack([0], first.affine(first.normal * first.depth))
    _refuse_mixed(places, name)
    order = along(places)
    corners = np.array([places[index].corner for index in order])
    _refuse_repeats(corners, first.normal, name)
    step = (corners[-1] - corners[0]) / (len(corners) - 1)
    ideal = corners[0] + np.arange(len(corners))[:, None] * step
    even = np.linalg.norm(corners - ideal, axis=1).max() <= POSITION_MM
    if even and _sine(step, first.normal) <= SHEAR:
        return Stack(order, places[order[0]].affine(step))
    units = np.min([place.units for place in places], axis=0)
    printed = even_stack(corners, units, first.normal, POSITION_MM, SHEAR)
    if printed is None:
        _refuse_irregular(corners, first.normal, name)
    start, step = printed
    warning = (
        f"{name} gives the places of its slices to {units[units <= COARSEST_MM].max():g} mm only; "
        f"they are taken as evenly {np.linalg.norm(step):.3f} mm apart."
    )
    return Stack(order, replace(first, corner=start).affine(step), warning)


def _refuse_mixed(places: Sequence[Place], name: str) -> None:
    first = places[0]
    for place in places:
        turned = np.abs(np.r_[place.across - first.across, place.down - first.down]).max()
        if turned > DIRECTION:
            raise ReadError(
                f"{name} mixes slices of different orientation (direction cosines differ by "
                f"{turned:.4f}); {_ADVICE}."
            )
        if np.abs(np.subtract(place.spacing, first.spacing)).max() > _SPACING_MM:
            raise ReadError(
                f"{name} mixes slices of different pixel spacing ({first.spacing[0]:g} and "
                f"{place.spacing[0]:g} mm between rows, {first.spacing[1]:g} and "
                f"{place.spacing[1]:g} mm between columns); {_ADVICE}."
            )


def _refuse_repeats(corners: NDArray[np.float64], normal: NDArray[np.float64], name: str) -> None:
    repeats = np.flatnonzero(np.diff(corners @ normal) <= POSITION_MM)
    if repeats.size:
        raise ReadError(
            f"{name} holds more than one slice at {_where(normal, corners[repeats[0]])} mm; "
            f"{_ADVICE}."
        )


def _refuse_irregular(
    corners: NDArray[np.float64], normal: NDArray[np.float64], name: str
) -> NoReturn:
    """Say whether the stack leans, a slice is missing, or what else is uneven."""
    steps = np.diff(corners, axis=0)
    gaps = steps @ normal
    usual = float(np.median(gaps))
    # The median, as one slice beside the others is no lean of the whole stack.
    _refuse_shear(np.median(steps / gaps[:, None], axis=0), normal, name)
    worst = int(np.argmax(np.abs(gaps - usual)))
    between = f"{_where(normal, corners[worst])} and {_where(normal, corners[worst + 1], '')} mm"
    counts = np.rint(gaps / usual)
    multiples = bool((np.abs(gaps - counts * usual) <= 2 * POSITION_MM).all())
    if multiples and counts[worst] > 1:
        missing = int(counts[worst]) - 1
        what = "a slice is" if missing == 1 else f"{missing} slices are"
        raise ReadError(f"{name}: {what} missing between {between}; {_ADVICE}.")
    if abs(gaps[worst] - usual) <= POSITION_MM:
        raise ReadError(
            f"{name} holds slices that do not lie straight above one another; {_ADVICE}."
        )
    raise ReadError(
        f"{name} is unevenly spaced ({gaps[worst]:.2f} mm between {between}, {usual:.2f} mm "
        f"elsewhere); {_ADVICE}."
    )


def _sine(step: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Of the angle between the way from slice to slice and the normal."""
    return float(np.linalg.norm(step - (step @ normal) * normal) / np.linalg.norm(step))


def _refuse_shear(step: NDArray[np.float64], normal: NDArray[np.float64], name: str) -> None:
    sine = _sine(step, normal)
    if sine > SHEAR:
        raise ReadError(
            f"{name} is sheared: the stack leans {math.degrees(math.asin(min(sine, 1.0))):.1f} "
            f"degrees from the slice normal (gantry tilt); {_ADVICE}."
        )


def _where(normal: NDArray[np.float64], corner: NDArray[Any], label: str | None = None) -> str:
    """Coordinate along the patient axis that the stack follows most, as in "z = 10.00"."""
    axis = int(np.argmax(np.abs(normal)))
    prefix = f"{'xyz'[axis]} = " if label is None else label
    return f"{prefix}{corner[axis]:.2f}"
