"""What the engines of the SAM family share: coordinates, embeddings, masks and how they load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers.utils import logging as transformers_log

from napari_medreasoner.core.errors import WeightsError
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.models.folder import Manifest
from napari_medreasoner.engines.models.weights import origin_of, read_tensors

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Embedding",
    "authors_tensors",
    "box_corners",
    "clicks",
    "enlarged",
    "info_of",
    "load_checked",
    "origin_in",
    "require_fit",
    "weights_file",
]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""Of the channels red, green and blue, on a scale from 0 to 1."""

PromptKind = Literal["box", "points", "negative points"]


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a picture's encoder made of it.

    Attributes
    ----------
    features : tuple of Tensor
        On the engine's device; coarsest last.
    size : tuple of int
        Rows and columns of the picture.
    """

    features: tuple[torch.Tensor, ...]
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of the features, which is what a cache counts."""
        return sum(feature.nbytes for feature in self.features)


def clicks(prompts: Prompts, size: tuple[int, int], side: int) -> NDArray[np.float32]:
    """Points in the model's square, of shape (point, 2) and order (x, y).

    The square's coordinates are the picture's, scaled; the models add half a pixel of their own.
    """
    scale = np.array([side / size[1], side / size[0]])
    found = np.array([(point.x, point.y) for point in prompts.points], np.float64)
    return np.asarray(found.reshape(-1, 2) * scale, np.float32)


def box_corners(prompts: Prompts, size: tuple[int, int], side: int) -> NDArray[np.float32] | None:
    """First and last pixel of the box in the model's square, of shape (2, 2) and order (x, y).

    The models were trained with boxes that end on the last pixel; ours end behind it.
    """
    if prompts.box is None:
        return None
    x1, y1, x2, y2 = prompts.box.corners
    scale = np.array([side / size[1], side / size[0]])
    return np.asarray(np.array([(x1, y1), (x2 - 1, y2 - 1)]) * scale, np.float32)


def enlarged(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Logits of shape (row, column) in the picture's own size, in float32."""
    whole = functional.interpolate(
        logits[None, None].float(), size, mode="bilinear", align_corners=False
    )
    return whole[0, 0]


def info_of(
    card: ModelCard,
    weights: str,
    window: str,
    *,
    volumes: bool = False,
    prompts: tuple[PromptKind, ...] = ("box", "points", "negative points"),
) -> EngineInfo:
    """Describe an engine from its model's card."""
    return EngineInfo(
        name=card.name,
        title=card.title,
        description=card.description,
        licence=card.licence,
        coordinates="pixels of the given picture, boxes max-exclusive",
        input_window=window,
        volumes=volumes,
        prompts=prompts,
        weights=weights,
    )


def weights_file(folder: Path, names: Iterable[str]) -> Path:
    """The first of these files that a model's folder holds.

    Raises
    ------
    WeightsError
        When it holds none.
    """
    names = tuple(names)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder} holds none of {', '.join(names)}; check the model's folder.")


def origin_in(folder: Path, path: Path) -> str:
    """`origin_of` a file, by the manifest of its folder if there is one."""
    manifest = Manifest.read(folder)
    return (
        origin_of(manifest.repository, manifest.revision, path)
        if manifest
        else origin_of("", "", path)
    )


def require_fit(
    path: Path, wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> None:
    """Refuse weights that do not fit a model, by the names of some of them.

    Raises
    ------
    WeightsError
        When a tensor is missing, left over or of another shape.
    """
    _require(
        path,
        {
            "lacks": wanted.keys() - found.keys(),
            "has no place for": found.keys() - wanted.keys(),
            "has another shape of": {
                name
                for name in wanted.keys() & found.keys()
                if wanted[name].shape != found[name].shape
            },
        },
    )


def _require(path: Path, faults: Mapping[str, Iterable[str]]) -> None:
    """Raise with up to three names for each fault."""
    told = []
    for fault, names in faults.items():
        if listed := sorted(names):
            more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
            told.append(f"{fault} {', '.join(listed[:3])}{more}")
    if told:
        raise WeightsError(
            f"{path} is not this model: it {'; it '.join(told)}; check which model the file is."
        )


def authors_tensors(path: Path) -> Mapping[str, torch.Tensor]:
    """Read a checkpoint of the authors' layout: tensors by name, alone or under "model".

    Raises
    ------
    WeightsError
        When it cannot be read safely or holds no model.
    """
    found = read_tensors(path)
    tensors = found.get("model", found)
    if (
        not tensors
        or not isinstance(tensors, Mapping)
        or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    ):
        raise WeightsError(f"{path} holds no model, or more than one; check which file it is.")
    return tensors


@contextmanager
def _silence() -> Iterator[None]:
    """No progress bar and no table of faults, which `load_checked` tells in one sentence."""
    verbosity, bars = transformers_log.get_verbosity(), transformers_log.is_progress_bar_enabled()
    transformers_log.set_verbosity(CRITICAL)
    transformers_log.disable_progress_bar()
    try:
        yield
    finally:
        transformers_log.set_verbosity(verbosity)
        if bars:
            transformers_log.enable_progress_bar()


def load_checked(
    kind: Any, path: Path, *, config: Any = None, tensors: Mapping[str, Any] | None = None
) -> Any:
    """Load a model of transformers, in float32, whole or not at all.

    Parameters
    ----------
    kind : type
        A class with `from_pretrained`.
    path : Path
        Folder in transformers' layout, which was checked; or, with `tensors`, the file they came
        from, named in errors.
    config, tensors
        Configuration and weights, when they do not come from a folder.

    Raises
    ------
    WeightsError
        When a tensor is missing, left over or of another shape, or the configuration is spoilt.
    """
    try:
        with _silence():
            model, report = kind.from_pretrained(
                path if tensors is None else None,
                config=config,
                state_dict=tensors,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises anything when a configuration is spoilt
        raise WeightsError(
            f"The model in {path} cannot be loaded ({type(error).__name__}); get its files again."
        ) from error
    _require(
        path,
        {
            "lacks": report["missing_keys"],
            "has no place for": report["unexpected_keys"],
            "has another shape of": {name for name, *_ in report["mismatched_keys"]},
        },
    )
    return model.eval()
