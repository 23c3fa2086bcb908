"""Slice positions printed with few decimals: the even stack that printing may have hidden.

DICOM gives positions as text (PS3.5 6.2, DS). Rounded to 0.1 mm, slices 0.625 mm apart look
unevenly spaced, and an oblique stack of few slices looks sheared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["COARSEST_MM", "even_stack", "printed_units"]

COARSEST_MM: Final = 0.1
"""Coarsest rounding that is accepted as such: positions in whole millimetres are not."""

_STEPS: Final = 4
"""Least number of printed units from slice to slice.

The even line nearest to a stack with a slice missing is off by a quarter of a step or more, and
rounding by half a unit: from two units on a gap cannot pass for rounding. Twice that is asked.
"""

_SLACK_MM: Final = 1e-6


def printed_units(value: Any) -> tuple[float, ...]:
    """Millimetres that one unit of the last printed decimal of each coordinate stands for.

    Parameters
    ----------
    value : sequence of DS
        As pydicom read it; a number that no text belongs to counts as exact, 0.
    """
    texts = [getattr(item, "original_string", None) for item in value]
    return tuple(0.0 if text is None else _unit(text) for text in texts)


def _unit(text: str) -> float:
    exponent = Decimal(text.strip()).as_tuple().exponent
    return 10.0**exponent if isinstance(exponent, int) else 0.0


def even_stack(
    corners: NDArray[np.float64],
    units: Sequence[float],
    normal: NDArray[np.float64],
    exact: float,
    lean: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The straight, even stack whose positions, once printed, are the ones given.

    Of all that are possible, the one with the least sum, over the coordinates, of the largest
    difference t, found by linear programming: -t <= start + index * step - corner <= t.

    Parameters
    ----------
    corners : ndarray, shape (slice, 3)
        In the order of the stack, mm.
    units : sequence of float
        Printed unit of each of the three coordinates, mm.
    normal : ndarray, shape (3,)
        Of the slices.
    exact : float
        Difference allowed to a coordinate that was not rounded, mm.
    lean : float
        Largest sine of the angle between the step and the normal.

    Returns
    -------
    (start, step) or None
        Each of shape (3,), mm. None when rounding does not explain the positions, or would
        explain too much.
    """
    # Imported here as hardly a series needs it.
    from scipy.optimize import linprog

    length = float((corners[-1] - corners[0]) @ normal) / (len(corners) - 1)
    coarse = [2 * exact < unit <= COARSEST_MM and unit * _STEPS <= length for unit in units]
    if not any(coarse):
        return None
    largest = np.where(coarse, np.asarray(units) / 2, exact) + _SLACK_MM
    # Unknown are start and step, how far the step goes along the normal, and t.
    found = linprog(
        c=np.repeat((0.0, 1.0), (7, 3)),
        A_ub=np.vstack([*_differences(len(corners)), *_leaning(normal, lean)]),
        b_ub=np.r_[corners.ravel(), -corners.ravel(), np.zeros(6)],
        bounds=[(None, None)] * 7 + [(0.0, float(most)) for most in largest],
    )
    return None if found.x is None else (found.x[:3], found.x[3:6])


def _differences(count: int) -> list[NDArray[np.float64]]:
    """Rows of (start + index * step) - t and of its negative - t, for each coordinate."""
    each, none = np.tile(np.eye(3), (count, 1)), np.zeros((3 * count, 1))
    moved = np.kron(np.arange(count)[:, None], np.eye(3))
    return [np.c_[sign * each, sign * moved, none, -each] for sign in (1.0, -1.0)]


def _leaning(normal: NDArray[np.float64], lean: float) -> list[NDArray[np.float64]]:
    """Rows of the step without its part along the normal, both ways, less what may lean."""
    none, share = np.zeros((3, 3)), lean / math.sqrt(3)
    return [np.c_[none, sign * np.eye(3), -sign * normal - share, none] for sign in (1.0, -1.0)]
