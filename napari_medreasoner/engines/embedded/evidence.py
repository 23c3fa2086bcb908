"""What the `prior` reasoner measures in an image.

Training (`medreasoner_trainer.priors`) and inference compute the features with this code
and no other. Everything happens on a thumbnail. Boxes are four fractions of the image's
width and height, x1, y1, x2, y2; a *placement* is the same box as (centre x, centre y,
log width, log height), in which deviations are roughly normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.fft import dctn

__all__ = [
    "LEVELS",
    "STRATEGIES",
    "Thumbnail",
    "box_of",
    "candidate_boxes",
    "fraction_iou",
    "layout_features",
    "placement_of",
    "region_at",
    "region_features",
    "resampled",
    "smooth_map",
    "thumbnail",
]

Floats = NDArray[np.float32]

_SIDE: Final = 64
_LAYOUT_SIDE: Final = 32
_WAVES: Final = 7
_GROUND: Final = 0.15
"""Darker than this share of the grey range is the background around the body."""

LEVELS: Final = (0.35, 0.5, 0.65, 0.8)
"""Shares of a map's highest probability at which candidate regions are cut out of it."""

STRATEGIES: Final = (
    "expected",
    *(f"region {level}" for level in LEVELS),
    *(f"halfway {level}" for level in LEVELS),
    "consensus",
)
"""How a box is chosen among the candidates; the best one per structure is learned."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image at working size.

    Attributes
    ----------
    grey : ndarray of float32, shape (row, column)
        Zero mean, unit standard deviation; longest side 64.
    red_green, yellow_blue : ndarray of float32, shape (row, column)
        Colour differences; zero in a grey image.
    body : tuple of float
        Box of what is not dark background, in fractions of the image.
    layout : ndarray of float32, shape (features,)
        See `layout_features`.
    """

    grey: Floats
    red_green: Floats
    yellow_blue: Floats
    body: tuple[float, float, float, float]
    layout: Floats


def resampled(
    plane: Floats, size: tuple[int, int], region: tuple[float, float, float, float] | None = None
) -> Floats:
    """Resample a plane, averaging when it shrinks.

    Parameters
    ----------
    plane : ndarray of float32, shape (row, column)
        The values.
    size : (int, int)
        Rows and columns wanted.
    region : (float, float, float, float), optional
        x1, y1, x2, y2 of the part to be taken, in pixels of `plane`.
    """
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    wanted = (size[1], size[0])
    return np.array(image.resize(wanted, Image.Resampling.BILINEAR, box=region), np.float32)


def thumbnail(image: NDArray[np.uint8]) -> Thumbnail:
    """Shrink an image of shape (row, column, 3) to working size."""
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(4, round(width * scale)), max(4, round(height * scale))
    picture = Image.fromarray(np.ascontiguousarray(image))
    # Two steps: the first is a cheap block average, so that huge images stay quick.
    small = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = np.asarray(small, np.float32) / np.float32(255)
    grey = pixels.mean(axis=-1)
    square = picture.resize(
        (_LAYOUT_SIDE, _LAYOUT_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    body = _body(grey)
    return Thumbnail(
        grey=(grey - grey.mean()) / (grey.std() + np.float32(0.02)),
        red_green=np.float32(4) * (pixels[..., 0] - pixels[..., 1]),
        yellow_blue=np.float32(4) * (pixels[..., 1] - pixels[..., 2]),
        body=body,
        layout=layout_features(
            np.asarray(square, np.float32) / np.float32(255), body, width / height
        ),
    )


def _body(grey: Floats) -> tuple[float, float, float, float]:
    """Box of what is not dark background, in fractions of the image."""
    height, width = grey.shape
    low, high = np.percentile(grey, [1, 99])
    bright = grey > low + _GROUND * (high - low)
    columns = np.flatnonzero(bright.mean(axis=0) > 0.08)
    rows = np.flatnonzero(bright.mean(axis=1) > 0.08)
    if columns.size < 4 or rows.size < 4:
        return 0.0, 0.0, 1.0, 1.0
    return (
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def layout_features(
    square: Floats, body: tuple[float, float, float, float], aspect: float
) -> Floats:
    """Coarse layout of an image.

    Parameters
    ----------
    square : ndarray of float32, shape (32, 32, 3)
        The image, 0 to 1.
    body : tuple of float
        Box of the body, in fractions of the image.
    aspect : float
        Width / height of the image.

    Returns
    -------
    ndarray of float32
        Low-frequency cosine coefficients, body box, brightness, contrast, log aspect and
        mean colour.
    """
    grey = square.mean(axis=-1)
    normal = (grey - grey.mean()) / (grey.std() + np.float32(0.02))
    waves = np.asarray(dctn(normal, norm="ortho")) / _LAYOUT_SIDE
    low = [waves[i, j] for i in range(_WAVES) for j in range(_WAVES) if 0 < i + j < _WAVES]
    colour = square.mean(axis=(0, 1)) - square.mean()
    whole = [*body, grey.mean(), grey.std(), np.log(aspect), *colour]
    return np.asarray([*low, *whole], np.float32)


def region_features(image: Thumbnail, expected: Floats) -> Floats:
    """Describe each thumbnail pixel by its surroundings and its place.

    Parameters
    ----------
    image : Thumbnail
        The image.
    expected : ndarray of float32, shape (4,)
        Placement expected from the layout alone.

    Returns
    -------
    ndarray of float32, shape (row, column, features)
    """
    features = [
        *_textures(image),
        *_asymmetry(image),
        *_surroundings(image.grey),
        *_places(image, expected),
    ]
    return np.stack(np.broadcast_arrays(*features), axis=-1).astype(np.float32)


def _textures(image: Thumbnail) -> list[Floats]:
    grey = image.grey
    mean = ndimage.gaussian_filter(grey, 2)
    spread = np.sqrt(np.maximum(ndimage.gaussian_filter(grey * grey, 2) - mean * mean, 0))
    features = [grey, *(ndimage.gaussian_filter(grey, sigma) for sigma in (1, 2, 4, 8))]
    features += [ndimage.gaussian_gradient_magnitude(grey, sigma) for sigma in (1, 2.5)]
    features.append(spread)
    for channel in (image.red_green, image.yellow_blue):
        smooth = ndimage.gaussian_filter(channel, 1)
        features += [smooth, smooth - channel.mean()]
    return features


def _asymmetry(image: Thumbnail) -> list[Floats]:
    """Difference from the mirror image about the middle of the body, and depth under its edge.

    A lesion is brighter or darker than the same place on the other side, and not the skin.
    """
    grey = ndimage.gaussian_filter(image.grey, 1.5)
    left, _, right, _ = image.body
    columns = np.arange(grey.shape[1])
    mirrored = np.rint((left + right) * grey.shape[1] - 1 - columns).astype(np.intp)
    difference = grey - grey[:, np.clip(mirrored, 0, grey.shape[1] - 1)]
    low, high = np.percentile(image.grey, [1, 99])
    body = ndimage.binary_fill_holes(image.grey > low + _GROUND * (high - low))
    inside = ndimage.distance_transform_edt(np.pad(body, 1))[1:-1, 1:-1]
    depth = (inside / max(inside.max(), 1)).astype(np.float32)
    features = [difference, np.maximum(difference, 0), depth, depth * depth]
    parts = (np.maximum(grey, 0), np.minimum(grey, 0), np.abs(difference))
    return features + [depth * part for part in parts]


def _surroundings(grey: Floats) -> list[Floats]:
    """Smoothed grey level in eight directions at three distances."""
    height, width = grey.shape
    features = []
    for sigma, offset in ((1.5, 5), (3, 10), (5, 20)):
        padded = np.pad(ndimage.gaussian_filter(grey, sigma), offset, mode="edge")
        for row in (0, offset, 2 * offset):
            for column in (0, offset, 2 * offset):
                if (row, column) != (offset, offset):
                    features.append(padded[row : row + height, column : column + width])
    return features


def _places(image: Thumbnail, expected: Floats) -> list[Floats]:
    x, y = _centres(image.grey.shape)
    x1, y1, x2, y2 = image.body
    across, down = (x - x1) / (x2 - x1), (y - y1) / (y2 - y1)
    u = np.clip(2 * (x - expected[0]) / np.exp(expected[2]), -6, 6)
    v = np.clip(2 * (y - expected[1]) / np.exp(expected[3]), -6, 6)
    features = [x, y, across, down, across * across, down * down, across * down]
    features += [u, v, u * u, v * v, np.hypot(u, v), np.maximum(np.abs(u), np.abs(v))]
    return features


def _centres(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    height, width = shape
    x = ((np.arange(width) + 0.5) / width).astype(np.float32)
    y = ((np.arange(height) + 0.5) / height).astype(np.float32)
    return x[None, :], y[:, None]


def smooth_map(probability: Floats) -> Floats:
    """Take single-pixel noise out of a map, shape (row, column)."""
    smoothed: Floats = ndimage.gaussian_filter(probability, 0.7)
    return smoothed


def region_at(probability: Floats, level: float) -> NDArray[np.bool_]:
    """Connected region around the map's maximum, above a share of it."""
    labels, _ = ndimage.label(probability >= level * probability.max())
    region: NDArray[np.bool_] = labels == labels.flat[int(probability.argmax())]
    return region


def candidate_boxes(probability: Floats, expected: Floats) -> Floats:
    """One box for each of `STRATEGIES`, in their order; shape (strategies, 4).

    "region": around the region at a level; "halfway": between that and the expected box;
    "consensus": median, edge by edge, of the expected box and the regions at all levels.
    """
    own = box_of(expected)
    regions = []
    for level in LEVELS:
        region = region_at(probability, level)
        regions.append(_box_around(region) if region.any() else own)
    halves = [(region + own) / 2 for region in regions]
    consensus = np.median([*regions, own], axis=0)
    return np.asarray([own, *regions, *halves, consensus], np.float32)


def _box_around(region: NDArray[np.bool_]) -> Floats:
    height, width = region.shape
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return np.asarray(
        [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height],
        np.float32,
    )


def box_of(placement: Floats) -> Floats:
    """Box of a placement, clipped to the image."""
    x, y, log_width, log_height = (float(value) for value in placement)
    half_width, half_height = np.exp(log_width) / 2, np.exp(log_height) / 2
    corners = [x - half_width, y - half_height, x + half_width, y + half_height]
    return np.clip(np.asarray(corners, np.float32), 0, 1)


def placement_of(box: Floats) -> Floats:
    """Placement of a box that has an area."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return np.asarray([(x1 + x2) / 2, (y1 + y2) / 2, np.log(x2 - x1), np.log(y2 - y1)], np.float32)


def fraction_iou(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = max(float(min(a[2], b[2]) - max(a[0], b[0])), 0.0)
    height = max(float(min(a[3], b[3]) - max(a[1], b[1])), 0.0)
    areas = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / max(areas - width * height, 1e-9)
