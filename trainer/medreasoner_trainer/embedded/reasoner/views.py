"""Random views of whole pictures: turned, shifted, scaled and recoloured, with their targets."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from medreasoner_trainer.data import DataSet, Record
from medreasoner_trainer.embedded.colours import coloured
from medreasoner_trainer.embedded.evenness import even_odds
from medreasoner_trainer.training.pictures import Scale, resized
from napari_medreasoner.core.masks import box_of_mask

__all__ = ["Pictures", "Target", "View"]

_MIRRORED: Final = {
    "Dermoscopy",
    "Endoscopy",
    "Fundus",
    "Histopathology",
    "Mammography",
    "OCT",
}
_MIRRORED_CATEGORIES: Final = {
    "benign breast tumor",
    "malignant breast tumor",
    "hippocampi",
    "anterior hippocampus",
    "posterior hippocampus",
    "glioma",
    "meningioma",
    "pituitary tumor",
}
"""Where left and right say nothing about what is meant."""

_UPRIGHT: Final = {"Dermoscopy", "Endoscopy", "Histopathology"}
"""Not so: these may be turned upside down as well."""

_KEPT: Final = 0.7
"""Share of a target that must stay in view."""

_CLOSE: Final = 0.25
"""Share of views that are close-ups of a target, as many sources crop their pictures."""

_CLOSEST: Final = 1 / 3
"""Side of the closest one over the picture's."""

_CELLS: Final = 7
"""Side of a cell of coarse masks, in pixels of the shown picture."""


@dataclass(frozen=True)
class Target:
    """One structure in a view.

    Attributes
    ----------
    record : Record
        Of the stored picture.
    box : tuple of float
        x1, y1, x2, y2 in pixels of the view, max-exclusive.
    points : tuple of (float, float)
        Key points in pixels of the view.
    mask : ndarray of uint8, shape (row, column)
        255 inside.
    """

    record: Record
    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], tuple[float, float]]
    mask: NDArray[np.uint8]

    @property
    def coarse(self) -> NDArray[np.float32]:
        """Share of each cell of 7 x 7 pixels that the target covers."""
        rows, columns = (side // _CELLS for side in self.mask.shape)
        cells = self.mask.reshape(rows, _CELLS, columns, _CELLS).astype(np.float32)
        share: NDArray[np.float32] = cells.mean(axis=(1, 3)) / np.float32(255)
        return share


@dataclass(frozen=True)
class View:
    """A picture as it is shown, with the targets that are in it."""

    picture: NDArray[np.uint8]
    targets: list[Target]


class Pictures:
    """Pictures of a data set at the size at which they are shown, held in memory.

    Parameters
    ----------
    data : DataSet
        With masks.
    side : int
        See `Scale`.
    """

    def __init__(self, data: DataSet, side: int) -> None:
        grouped: defaultdict[str, list[Record]] = defaultdict(list)
        for record in data.records:
            grouped[record.image].append(record)
        self.groups = list(grouped.values())
        self._scales = [Scale(group[0].image_size, side) for group in self.groups]
        self._pictures = [
            resized(data.image(group[0]), scale)
            for group, scale in zip(self.groups, self._scales, strict=True)
        ]
        self._masks = [
            [_shrunk(data.mask(record), scale) for record in group]
            for group, scale in zip(self.groups, self._scales, strict=True)
        ]
        self._odds = even_odds([group[0].modality for group in self.groups])

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def categories(self) -> set[str]:
        """What can be asked for."""
        return {record.category for group in self.groups for record in group}

    def draw(self, draw: Generator) -> View:
        """A random view of a random picture."""
        while True:
            at = int(draw.choice(len(self.groups), p=self._odds))
            view = self._seen(at, _affine(self.groups[at], self._scales[at].shown, draw))
            if view.targets:
                return View(coloured(view.picture, draw), view.targets)

    def plain(self, at: int) -> View:
        """A picture as it is."""
        return self._seen(at, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))

    def _seen(self, at: int, affine: tuple[float, ...]) -> View:
        scale = self._scales[at]
        a, b, c, d, e, f = affine
        back = np.linalg.inv(np.array([[a, b, c], [d, e, f], [0, 0, 1]]))
        targets = []
        for record, mask in zip(self.groups[at], self._masks[at], strict=True):
            moved = np.asarray(_moved(mask, affine, Image.Resampling.NEAREST))
            inside = moved > 127
            size = np.count_nonzero(np.asarray(mask) > 127) * abs(np.linalg.det(back[:2, :2]))
            if inside.sum() < max(_KEPT * size, 1):
                continue
            points = [back @ (x + 0.5, y + 0.5, 1) for x, y in scale.pair(record.points)]
            first, second = ((float(x), float(y)) for x, y, _ in points)
            corners = box_of_mask(inside).corners
            targets.append(Target(record, corners, (first, second), moved))
        picture = _moved(self._pictures[at], affine, Image.Resampling.BILINEAR)
        return View(np.asarray(picture), targets)


def _moved(image: Image.Image, affine: tuple[float, ...], how: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, affine, how)


def _shrunk(mask: NDArray[np.bool_], scale: Scale) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255).resize(scale.shown, Image.Resampling.BOX)


def _affine(group: list[Record], size: tuple[int, int], draw: Generator) -> tuple[float, ...]:
    """Where the view's pixels lie in the picture."""
    modality = group[0].modality
    free = modality in _MIRRORED or all(r.category in _MIRRORED_CATEGORIES for r in group)
    mirrored = -1.0 if free and draw.random() < 0.5 else 1.0
    angle = draw.normal(0, 0.1)
    if modality in _UPRIGHT:
        angle += draw.choice([0, 0.5, 1, 1.5]) * np.pi
    zoom, stretch = np.exp(draw.normal(0, 0.13)), np.exp(draw.normal(0, 0.06))
    middle, focus = np.array(size) / 2, np.array(size) / 2
    if draw.random() < _CLOSE:
        zoom *= _CLOSEST ** draw.random()
        record = group[int(draw.integers(len(group)))]
        x1, y1, x2, y2 = record.box.corners
        focus = np.array(((x1 + x2) / 2, (y1 + y2) / 2)) / record.image_size * size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([mirrored * stretch, 1 / stretch]) * zoom
    centre = focus + draw.normal(0, 0.06 * zoom, 2) * size
    shift = centre - linear @ middle
    (a, b), (d, e) = linear.tolist()
    return a, b, float(shift[0]), d, e, float(shift[1])
