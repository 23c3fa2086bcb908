"""How often what is rare is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["even_odds"]

_EVENNESS: Final = 0.3


def even_odds(modalities: Sequence[str]) -> NDArray[np.floating[Any]]:
    """Probabilities of items by their modality, of shape (item,).

    All items of a modality together are drawn as often as their count to the power of 0.7 says.
    """
    counts = Counter(modalities)
    odds = np.array([counts[modality] ** -_EVENNESS for modality in modalities])
    shares: NDArray[np.floating[Any]] = odds / odds.sum()
    return shares
