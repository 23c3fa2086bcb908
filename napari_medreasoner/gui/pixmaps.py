"""Pictures as Qt shows them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon, QImage, QPainter, QPixmap

__all__ = ["icon_of", "pixmap_of"]


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


def icon_of(picture: NDArray[np.uint8] | None, side: int) -> QIcon:
    """Return a picture in the middle of a black square, selected or not; None is all black."""
    square = QPixmap(side, side)
    square.fill(Qt.GlobalColor.black)
    if picture is not None:
        pixmap = pixmap_of(picture, side)
        painter = QPainter(square)
        painter.drawPixmap((side - pixmap.width()) // 2, (side - pixmap.height()) // 2, pixmap)
        painter.end()
    icon = QIcon(square)
    icon.addPixmap(square, QIcon.Mode.Selected)
    return icon
