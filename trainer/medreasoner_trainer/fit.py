"""Linear models fitted with scikit-learn and written as plain numbers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from napari_medreasoner.engines.embedded.priors import Linear

__all__ = ["fit_logistic", "fit_ridge"]

_DIGITS: Final = 3
_LEAST_SCALE: Final = 1e-3

Floats = NDArray[np.float32]


def fit_logistic(features: Floats, labels: NDArray[np.bool_], penalty: float) -> Linear:
    """Logistic regression: log-odds of a label.

    Parameters
    ----------
    features : ndarray of float32, shape (n, features)
        What is known.
    labels : ndarray of bool, shape (n,)
        What is asked.
    penalty : float
        L2 weight.
    """
    scaler = _scaler(features)
    model = LogisticRegression(C=1 / penalty, max_iter=500)
    model.fit(scaler.transform(features), labels)
    return _linear(scaler, model.coef_.T, model.intercept_)


def fit_ridge(features: Floats, targets: Floats, penalty: float) -> Linear:
    """Ridge regression: targets of shape (n, outputs) from features of shape (n, features)."""
    scaler = _scaler(features)
    model = Ridge(alpha=penalty).fit(scaler.transform(features), targets)
    return _linear(scaler, model.coef_.T, model.intercept_)


def _scaler(features: Floats) -> Any:
    scaler = StandardScaler().fit(features)
    scaler.scale_ = np.maximum(scaler.scale_, _LEAST_SCALE)
    return scaler


def _linear(scaler: Any, weights: Any, bias: Any) -> Linear:
    return Linear(
        mean=_short(scaler.mean_),
        scale=_short(scaler.scale_),
        weights=_short(weights),
        bias=_short(bias),
    )


def _short(values: Any) -> Any:
    """Nested lists with few significant digits: a short file, and no real loss."""
    if np.ndim(values):
        return [_short(value) for value in values]
    return float(f"{values:.{_DIGITS}g}")
