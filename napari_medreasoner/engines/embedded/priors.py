"""What training images say about where structures are and how they look: `priors.json`.

Derived by `medreasoner-train priors`; holds regression coefficients only, no image and no
part of one.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Linear", "Priors", "Provenance", "StructurePrior", "load_priors"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(_Frozen):
    """Where the numbers come from.

    Attributes
    ----------
    data : str
        Name of the data set.
    split : str
        The split used; no other was looked at.
    records, images : int
        Number of (image, structure) pairs, and of different images.
    command : str
        What derived the numbers.
    """

    data: str
    split: str
    records: int
    images: int
    command: str


class Linear(_Frozen):
    """A linear model of standardised features.

    Attributes
    ----------
    mean, scale : list of float
        Of each feature over the training set; inputs become (x - mean) / scale.
    weights : list of list of float, shape (features, outputs)
        Coefficients.
    bias : list of float, shape (outputs,)
        Outputs at the mean of all features.
    """

    mean: list[float]
    scale: list[float]
    weights: list[list[float]]
    bias: list[float]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Evaluate for features of shape (..., features); gives (..., outputs)."""
        scaled = (features - np.asarray(self.mean, np.float32)) / np.asarray(self.scale, np.float32)
        # A feature far outside what training saw must not decide alone.
        bounded = np.clip(scaled, -6, 6).astype(np.float32)
        weights, bias = np.asarray(self.weights, np.float32), np.asarray(self.bias, np.float32)
        outputs: NDArray[np.float32] = bounded @ weights + bias
        return outputs


class StructurePrior(_Frozen):
    """What training images of one modality say about one structure.

    Attributes
    ----------
    images : int
        Number of training records.
    placement : Linear
        Layout features to the placement; its bias is the mean placement.
    deviation : list of float
        Standard deviation of the placement around its prediction in images left out of
        the fit: (centre x, centre y, log width, log height).
    region : Linear or None
        Log-odds of belonging to the structure from region features; None when there were
        too few images.
    strategy : str
        Member of `evidence.STRATEGIES` that did best in images left out of the fit.
    overlap : float or None
        Mean intersection over union reached so.
    """

    images: int
    placement: Linear
    deviation: Annotated[list[float], Field(min_length=4, max_length=4)]
    region: Linear | None
    strategy: str
    overlap: float | None


class Priors(_Frozen):
    """Content of `priors.json`; `structures` is keyed by category and modality."""

    provenance: Provenance
    structures: dict[str, dict[str, StructurePrior]]


@cache
def load_priors() -> Priors:
    """Read the numbers that ship with the package, once."""
    text = (files("napari_medreasoner.engines.embedded") / "priors.json").read_text("utf-8")
    return Priors.model_validate_json(text)
