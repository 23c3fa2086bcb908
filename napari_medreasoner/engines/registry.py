"""Engine names to engines; third parties add theirs through entry points.

An entry point in the group `napari_medreasoner.reasoners` or
`napari_medreasoner.segmenters` names a class or function that takes no argument and
returns the engine::

    [project.entry-points."napari_medreasoner.segmenters"]
    my-asm = "my_package.engine:MySegmenter"

The project's own engines are registered the same way. An engine is imported only when it
is asked for.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from napari_medreasoner.core.errors import MissingEngineError
from napari_medreasoner.engines.base import Reasoner, Segmenter

__all__ = ["create_reasoner", "create_segmenter", "reasoner_names", "segmenter_names"]

_REASONERS: Final = "napari_medreasoner.reasoners"
_SEGMENTERS: Final = "napari_medreasoner.segmenters"


def reasoner_names() -> tuple[str, ...]:
    """Names that `create_reasoner` knows, sorted."""
    return tuple(sorted(entry_points(group=_REASONERS).names))


def segmenter_names() -> tuple[str, ...]:
    """Names that `create_segmenter` knows, sorted."""
    return tuple(sorted(entry_points(group=_SEGMENTERS).names))


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError as error:
        raise MissingEngineError(
            f'The engine "{entry.name}" needs a package that is not installed ({error}); '
            "install the extra that brings it, e.g. pip install 'napari-medreasoner[backend]'."
        ) from error


def _create(group: str, kind: str, name: str) -> Any:
    found = entry_points(group=group, name=name)
    if not found:
        known = ", ".join(sorted(entry_points(group=group).names))
        raise MissingEngineError(f'There is no {kind} named "{name}"; choose one of: {known}.')
    return _load(next(iter(found)))()


def create_reasoner(name: str) -> Reasoner:
    """Build a reasoner (CRM) by name.

    Raises
    ------
    MissingEngineError
        When the name is unknown, a package it needs is missing, or what its entry point
        names is not a reasoner.
    """
    engine = _create(_REASONERS, "reasoner", name)
    if not isinstance(engine, Reasoner):
        raise MissingEngineError(f'The entry point "{name}" does not give a reasoner; fix it.')
    return engine


def create_segmenter(name: str) -> Segmenter:
    """Build a segmenter (ASM) by name.

    Raises
    ------
    MissingEngineError
        As for `create_reasoner`.
    """
    engine = _create(_SEGMENTERS, "segmenter", name)
    if not isinstance(engine, Segmenter):
        raise MissingEngineError(f'The entry point "{name}" does not give a segmenter; fix it.')
    return engine
