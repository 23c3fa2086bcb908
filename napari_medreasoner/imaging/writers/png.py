"""Pictures out as PNG, exactly: 8-bit grey or RGB, and 16-bit grey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = ["write_png"]


def write_png(path: Path, picture: NDArray[Any]) -> None:
    """Write a picture without changing a value: never windowed, never scaled.

    Parameters
    ----------
    path : Path
        Ends in ".png".
    picture : ndarray of uint8 or uint16, shape (row, column), or of uint8, (row, column, 3)
        As it is shown.

    Raises
    ------
    ExportError
        When PNG cannot hold the picture as it is, or writing fails.
    """
    kinds = {np.dtype(np.uint8): (2, 3), np.dtype(np.uint16): (2,)}
    flat = picture.ndim == 2 or picture.shape[2:] == (3,)
    if not flat or picture.ndim not in kinds.get(picture.dtype, ()):
        raise ExportError(
            f"PNG cannot hold this image (shape {picture.shape}, {picture.dtype}) without changing "
            "it; save it as .nii.gz."
        )
    with replace_atomically(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
        with Image.open(temporary) as back:
            if not np.array_equal(np.asarray(back), picture):
                raise ExportError(
                    "The file read back differs from the one written; nothing was saved."
                )
