"""Numbers of the `prior` reasoner, derived from training images."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from medreasoner_trainer.data import DataSet, Record
from medreasoner_trainer.fit import fit_logistic, fit_ridge
from napari_medreasoner.engines.embedded.evidence import (
    STRATEGIES,
    Floats,
    Thumbnail,
    candidate_boxes,
    fraction_iou,
    placement_of,
    region_features,
    resampled,
    smooth_map,
    thumbnail,
)
from napari_medreasoner.engines.embedded.priors import Linear, StructurePrior
from napari_medreasoner.engines.embedded.walker import share_of

__all__ = ["fit_structures"]

_FEWEST: Final = 5
"""Records below which a structure gets a mean place and nothing else."""

_FOLDS: Final = 4
_PIXELS: Final = 3000
"""Pixels for one region model, over all its images; at least 60 from each image."""

_PENALTY: Final = 10.0
_RIDGE: Final = 100.0
_BORROWED: Final = 30.0
"""Images' worth of weight that all structures together have in choosing a strategy."""

_UNKNOWN_DEVIATION: Final = (0.15, 0.15, 0.5, 0.5)


_POOLED: Final = {
    "glioma": "brain tumor",
    "meningioma": "brain tumor",
    "pituitary tumor": "brain tumor",
}
"""Categories with too few images each that look and are asked for alike."""


@dataclass(frozen=True, slots=True)
class _Example:
    """One record, measured: thumbnail, true mask on its grid, true box and placement."""

    image: Thumbnail
    mask: NDArray[np.bool_]
    box: Floats
    placement: Floats
    group: str


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A structure before its strategy is chosen; overlaps have shape (image, strategy)."""

    placement: Linear
    deviation: Floats
    region: Linear | None
    overlaps: Floats


def fit_structures(data: DataSet) -> dict[str, dict[str, StructurePrior]]:
    """Fit every structure in every modality it occurs in.

    Raises
    ------
    ReadError
        When an image or mask cannot be read.
    """
    examples: dict[tuple[str, str], list[_Example]] = defaultdict(list)
    for record in data.records:
        category = _POOLED.get(record.category, record.category)
        examples[category, record.modality].append(_example(data, record))
    fitted = {key: _fit_structure(found) for key, found in sorted(examples.items())}
    common = np.concatenate([one.overlaps for one in fitted.values()]).mean(axis=0)
    structures: dict[str, dict[str, StructurePrior]] = defaultdict(dict)
    for (category, modality), one in fitted.items():
        structures[category][modality] = _prior(one, len(examples[category, modality]), common)
    return dict(structures)


def _example(data: DataSet, record: Record) -> _Example:
    pixels = data.image(record)
    image = thumbnail(pixels)
    height, width = pixels.shape[:2]
    corners = np.asarray(record.box.corners, np.float32)
    box = (corners / np.asarray([width, height, width, height])).astype(np.float32)
    mask = resampled(data.mask(record).astype(np.float32), image.grey.shape) > 0.5
    return _Example(image, mask, box, placement_of(box), record.group)


def _fit_structure(examples: list[_Example]) -> _Fitted:
    layouts = np.stack([example.image.layout for example in examples])
    places = np.stack([example.placement for example in examples])
    linear = fit_ridge(layouts, places, _RIDGE)
    if len(examples) < _FEWEST:
        return _Fitted(
            linear,
            np.asarray(_UNKNOWN_DEVIATION, np.float32),
            None,
            np.zeros((0, len(STRATEGIES)), np.float32),
        )
    folds = _folds(examples)
    expected = np.empty_like(places)
    for kept, left_out in folds:
        expected[left_out] = fit_ridge(layouts[kept], places[kept], _RIDGE)(layouts[left_out])
    overlaps = np.empty((len(examples), len(STRATEGIES)), np.float32)
    for kept, left_out in folds:
        model = _fit_region([examples[i] for i in kept], expected[kept])
        for i in left_out:
            overlaps[i] = _overlaps(examples[i], expected[i], model)
    return _Fitted(
        linear, (places - expected).std(axis=0), _fit_region(examples, expected), overlaps
    )


def _folds(examples: list[_Example]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Kept and left-out indices; images of one patient stay together."""
    names = sorted({example.group for example in examples})
    own = np.asarray([names.index(example.group) for example in examples])
    if len(names) < 2:
        everything = np.arange(len(examples))
        return [(everything, everything)]
    splitter = KFold(min(_FOLDS, len(names)), shuffle=True, random_state=0)
    return [
        (np.flatnonzero(np.isin(own, kept)), np.flatnonzero(np.isin(own, left_out)))
        for kept, left_out in splitter.split(names)
    ]


def _fit_region(examples: list[_Example], expected: Floats) -> Linear:
    rng = np.random.default_rng(0)
    share = _PIXELS // len(examples) + 60
    features, labels = [], []
    for example, place in zip(examples, expected, strict=True):
        measured = region_features(example.image, place)
        truth = example.mask.ravel()
        inside, outside = np.flatnonzero(truth), np.flatnonzero(~truth)
        chosen = np.concatenate(
            [
                rng.choice(inside, min(inside.size, share // 2), replace=False),
                rng.choice(outside, min(outside.size, share), replace=False),
            ]
        )
        features.append(measured.reshape(-1, measured.shape[-1])[chosen])
        labels.append(truth[chosen])
    return fit_logistic(np.concatenate(features), np.concatenate(labels), _PENALTY)


def _overlaps(example: _Example, expected: Floats, model: Linear) -> list[float]:
    features = region_features(example.image, expected)
    probability = smooth_map(share_of(model(features)[..., 0]))
    boxes = candidate_boxes(probability, expected)
    return [fraction_iou(box, example.box) for box in boxes]


def _prior(fitted: _Fitted, images: int, common: Floats) -> StructurePrior:
    strategy, overlap = STRATEGIES[0], None
    if fitted.region is not None:
        total = fitted.overlaps.sum(axis=0) + _BORROWED * common
        best = int(total.argmax())
        strategy, overlap = STRATEGIES[best], round(float(fitted.overlaps[:, best].mean()), 3)
    return StructurePrior(
        images=images,
        placement=fitted.placement,
        deviation=[round(float(value), 4) for value in fitted.deviation],
        region=fitted.region,
        strategy=strategy,
        overlap=overlap,
    )
