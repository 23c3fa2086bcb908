"""Pictures as Qt shows them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap

__all__ = ["pixmap_of"]


def pixmap_of(picture: NDArray[np.uint8], side: int) -> QPixmap:
    """Return a picture of shape (row, column, 3) as a pixmap that fits a square."""
    rows, columns = picture.shape[:2]
    data = np.ascontiguousarray(picture).tobytes()
    image = QImage(data, columns, rows, 3 * columns, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image).scaled(
        side,
        side,
        Qt.AspectRatioMode.KeepAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
