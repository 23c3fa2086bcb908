"""The models known by name: `catalogue.toml`, read and checked."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from napari_medreasoner.core.errors import MissingEngineError
from napari_medreasoner.engines.models.card import ModelCard

__all__ = ["card_of", "catalogue", "close_matches"]


@cache
def catalogue() -> Mapping[str, ModelCard]:
    """Cards by name, in the catalogue's order."""
    text = (files("napari_medreasoner.engines.models") / "catalogue.toml").read_text("utf-8")
    return {
        name: ModelCard.model_validate({"name": name, **fields})
        for name, fields in tomllib.loads(text).items()
    }


def close_matches(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """How to go on after a name that is not known: the ones most like it, or all."""
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of: {', '.join(known)}."


def card_of(name: str) -> ModelCard:
    """Find a model by its name.

    Raises
    ------
    MissingEngineError
        When the catalogue has none of this name.
    """
    try:
        return catalogue()[name]
    except KeyError:
        raise MissingEngineError(
            f'The catalogue has no model named "{name}"; {close_matches(name, catalogue())}'
        ) from None
