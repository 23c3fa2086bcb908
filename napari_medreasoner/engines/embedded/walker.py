"""Log-odds and the random walker: from grey levels, places and seeds to a probability."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import random_walker

__all__ = ["SURE", "Bools", "Floats", "grey_evidence", "share_of", "smoothed", "walked"]

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

SURE: Final = 0.85
"""A pixel this probable, or this improbable, is a seed of the random walker."""

_BETA: Final = 150.0
"""How hard the random walker finds it to cross an edge."""

_BINS: Final = 48
_LIMIT: Final = 2.5
"""Most that a pixel's own value may say, in log-odds: histograms of small crops are rough."""

_COLOUR: Final = 0.02
"""A picture whose channels differ by less is grey."""

_SMOOTHING: Final = 0.8


def smoothed(values: Floats) -> Floats:
    """Take noise off a crop of shape (rows, columns, 3)."""
    result: Floats = ndimage.gaussian_filter(values, (_SMOOTHING, _SMOOTHING, 0.0))
    return result


def share_of(log_odds: Floats) -> Floats:
    """Probability that belongs to log-odds, without overflow."""
    result: Floats = 1 / (1 + np.exp(-np.clip(log_odds, -30, 30)))
    return result


def _channels(values: Floats) -> list[Floats]:
    """Brightness stretched to 0..1 and, for colour, two opponent channels."""
    grey = values.mean(axis=-1)
    low, high = np.percentile(grey, (1, 99))
    stretched = np.clip((grey - low) / max(high - low, 1e-3), 0, 1)
    opponents = [values[..., 0] - values[..., 1], values[..., 1] - values[..., 2]]
    if max(float(np.abs(opponent).max()) for opponent in opponents) < _COLOUR:
        return [stretched]
    return [stretched, *(np.clip(0.5 + opponent, 0, 1) for opponent in opponents)]


def _histogram(values: Floats) -> Floats:
    """Smoothed, nowhere zero, sum one."""
    counts = np.histogram(values, bins=_BINS, range=(0, 1))[0].astype(np.float64)
    smooth = ndimage.gaussian_filter1d(counts, 2, mode="nearest")
    smooth += 0.02 * smooth.max() + 1e-6
    result: Floats = smooth / smooth.sum()
    return result


def grey_evidence(values: Floats, inside: Bools, outside: Bools) -> Floats:
    """Log-likelihood ratio of each pixel's grey level or colour, a few units at most.

    Parameters
    ----------
    values : ndarray, shape (..., 3)
        From 0 to 1.
    inside, outside : ndarray of bool, shape (...)
        Samples of target and background. Without either there is no evidence: all zero.
    """
    total = np.zeros(inside.shape)
    if not (inside.any() and outside.any()):
        return total
    for channel in _channels(values):
        bins = np.minimum((channel * _BINS).astype(np.intp), _BINS - 1)
        total += np.log(_histogram(channel[inside]) / _histogram(channel[outside]))[bins]
    return np.clip(total, -_LIMIT, _LIMIT)


def walked(values: Floats, share: Floats, target: Bools, background: Bools) -> Floats:
    """Mean of a probability and of the random walker's that starts from its sure pixels.

    Parameters
    ----------
    values : ndarray, shape (row, column, 3)
        The picture.
    share : ndarray, shape (row, column)
        Probability so far; it is returned as it is when nothing is left to decide or seen.
    target, background : ndarray of bool, shape (row, column)
        Further seeds; background wins where both are set.
    """
    seeds = np.zeros(share.shape, np.intp)
    seeds[(share > SURE) | target] = 1
    seeds[((share < 1 - SURE) & ~target) | background] = 2
    if not all((seeds == kind).any() for kind in (0, 1, 2)) or not np.ptp(values):
        return share
    probabilities = random_walker(
        values,
        seeds,
        beta=_BETA,
        mode="bf",  # a direct solver: as quick on a crop as an iterative one, and exact
        channel_axis=-1,
        return_full_prob=True,
    )
    mean: Floats = (share + np.clip(probabilities[0], 0, 1)) / 2
    return mean
