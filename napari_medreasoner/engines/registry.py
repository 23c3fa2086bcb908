"""Engine names to engines; third parties add theirs through entry points.

A name is, in this order:

1. an entry point in the group `napari_medreasoner.reasoners` or
   `napari_medreasoner.segmenters`: a class or function that takes no argument and returns the
   engine::

       [project.entry-points."napari_medreasoner.segmenters"]
       my-asm = "my_package.engine:MySegmenter"

2. a model of the catalogue (`engines/models/catalogue.toml`), read from its folder;
3. the path of a folder with a model in transformers' layout, or with a U-Net as
   `medreasoner-train embedded ship` writes it.

The engines that ship are entry points too. An engine is imported only when it is
asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

from napari_medreasoner.core.errors import MissingEngineError, WeightsError
from napari_medreasoner.engines.base import Reasoner, Segmenter
from napari_medreasoner.engines.models.card import Coordinates, ModelCard
from napari_medreasoner.engines.models.catalogue import catalogue, close_matches
from napari_medreasoner.engines.models.folder import Manifest, folder_of, require_folder
from napari_medreasoner.engines.options import MANAGED, EngineOptions

__all__ = ["create_reasoner", "create_segmenter", "reasoner_names", "segmenter_names"]

_GROUPS: Final = {
    "crm": "napari_medreasoner.reasoners",
    "asm": "napari_medreasoner.segmenters",
}
_TITLES: Final = {"crm": "reasoner", "asm": "segmenter"}

_VLM: Final = "napari_medreasoner.engines.reasoners.transformers_vlm:load"
_LOADERS: Final[Mapping[str, str]] = {
    "qwen2_5_vl": _VLM,
    "qwen2_vl": _VLM,
    "internvl": _VLM,
    "gemma3": _VLM,
    "llava_next": _VLM,
    "small-qwen": "napari_medreasoner.engines.embedded.small_qwen:load",
    "unet": "napari_medreasoner.engines.embedded.unet:load",
    "openai": "napari_medreasoner.engines.reasoners.openai_api:load",
    "sam2": "napari_medreasoner.engines.segmenters.sam2:load",
    "sam2-reference": "napari_medreasoner.engines.segmenters.sam2_reference:load",
    "sam": "napari_medreasoner.engines.segmenters.medsam:load",
    "sam-med2d": "napari_medreasoner.engines.segmenters.sam_med2d:load",
}
"""Family to what is called with card, folder and options."""

_GRAPH: Final = "language.onnx"
_UNET: Final = "unet.onnx"
_WITHOUT_FOLDER: Final = ("openai",)

_EXTRAS: Final[Mapping[str, str]] = {"openai": "api", "sam2-reference": "reference"}
"""Family to the extra that brings its packages, where that is not `models`."""

_MODEL_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "qwen2_5_vl": ("crm", "qwen2_5_vl"),
    "qwen2_vl": ("crm", "qwen2_vl"),
    "internvl": ("crm", "internvl"),
    "gemma3": ("crm", "gemma3"),
    "llava_next": ("crm", "llava_next"),
    "sam2_video": ("asm", "sam2"),
    "sam": ("asm", "sam"),
}
"""`model_type` in a folder's config.json to role and family."""


def _names(role: str) -> tuple[str, ...]:
    cards = {name for name, card in catalogue().items() if card.role == role}
    return tuple(sorted(cards | set(entry_points(group=_GROUPS[role]).names)))


def reasoner_names() -> tuple[str, ...]:
    """Names that `create_reasoner` knows, sorted."""
    return _names("crm")


def segmenter_names() -> tuple[str, ...]:
    """Names that `create_segmenter` knows, sorted."""
    return _names("asm")


def _missing(name: str, error: ImportError, extra: str) -> MissingEngineError:
    return MissingEngineError(
        f'The engine "{name}" needs a package that is not installed ({error}); install the '
        f"extra that brings it, e.g. pip install 'napari-medreasoner[{extra}]'."
    )


def _of_entry(entry: EntryPoint) -> Any:
    try:
        return entry.load()()
    except ImportError as error:
        raise _missing(entry.name, error, "backend") from error


def _of_card(card: ModelCard, folder: Path, options: EngineOptions) -> Any:
    behind_api = card.role == "crm" and bool(options.endpoint)
    family = "openai" if behind_api else card.family
    module, function = _LOADERS[family].split(":")
    try:
        load = getattr(import_module(module), function)
    except ImportError as error:
        raise _missing(card.name, error, _EXTRAS.get(family, "models")) from error
    return load(card, folder, options)


def _card_of_folder(role: str, folder: Path) -> ModelCard:
    """Describe a folder of the user's own by its configuration."""
    if role == "asm" and (folder / _UNET).is_file():
        return _own_card(folder, role, "unet", "none")
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
        found, family = _MODEL_TYPES[kind]
    except OSError as error:
        raise WeightsError(f"{folder} holds no config.json and so no model to load.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder} holds no model that can be loaded by its path; config.json must name one "
            f"of: {', '.join(_MODEL_TYPES)}."
        ) from error
    if found != role:
        raise MissingEngineError(
            f"The model in {folder} is a {_TITLES[found]}, not a {_TITLES[role]}; choose another."
        )
    if kind == "qwen2_5_vl" and (folder / _GRAPH).is_file():
        family = "small-qwen"  # with graphs beside its weights it needs no torch
    manifest = Manifest.read(folder)
    coordinates = manifest.coordinates if manifest else None
    standard: Coordinates = "resized pixels" if kind == "qwen2_5_vl" else "norm1000"
    return _own_card(folder, found, family, (coordinates or standard) if role == "crm" else "none")


def _own_card(folder: Path, role: str, family: str, coordinates: Coordinates) -> ModelCard:
    return ModelCard(
        name=role,
        title=folder.name,
        role=role,
        family=family,
        description="A model from a folder of this machine.",
        coordinates=coordinates,
        answers="box and points" if role == "crm" else "mask",
    )


def _create(role: str, name: str, options: EngineOptions) -> Any:
    for entry in entry_points(group=_GROUPS[role], name=name):
        return _of_entry(entry)
    card = catalogue().get(name)
    if card is not None and card.role == role:
        # What runs elsewhere needs no files here; a server that we start does.
        elsewhere = role == "crm" and options.endpoint not in ("", MANAGED)
        if card.family in _WITHOUT_FOLDER or elsewhere:
            return _of_card(card, folder_of(card, options.models), options)
        return _of_card(card, require_folder(card, options.models), options)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _of_card(_card_of_folder(role, folder), folder, options)
    raise MissingEngineError(
        f'There is no {_TITLES[role]} named "{name}", nor a folder; '
        f"{close_matches(name, _names(role))}"
    )


def create_reasoner(name: str, options: EngineOptions | None = None) -> Reasoner:
    """Build a reasoner (CRM) by name or path.

    Parameters
    ----------
    name : str
        See the module.
    options : EngineOptions, optional
        For engines that load weights or call a server.

    Raises
    ------
    MissingEngineError
        When the name is unknown, a package it needs is missing, or what its entry point
        names is not a reasoner.
    WeightsError
        When its files are missing, damaged or unsafe.
    """
    engine = _create("crm", name, options or EngineOptions())
    if not isinstance(engine, Reasoner):
        raise MissingEngineError(f'The entry point "{name}" does not give a reasoner; fix it.')
    return engine


def create_segmenter(name: str, options: EngineOptions | None = None) -> Segmenter:
    """Build a segmenter (ASM) by name or path.

    Raises
    ------
    MissingEngineError, WeightsError
        As for `create_reasoner`.
    """
    engine = _create("asm", name, options or EngineOptions())
    if not isinstance(engine, Segmenter):
        raise MissingEngineError(f'The entry point "{name}" does not give a segmenter; fix it.')
    return engine
