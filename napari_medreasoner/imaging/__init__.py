"""Files and intensities: reading images, what a model sees of them, writing findings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from napari_medreasoner.imaging.readers.parts import Part, list_parts
    from napari_medreasoner.imaging.readers.reader import read_image
    from napari_medreasoner.imaging.sandbox import (
        cool_down,
        list_parts_sandboxed,
        read_sandboxed,
        warm_up,
    )
    from napari_medreasoner.imaging.volume import Volume
    from napari_medreasoner.imaging.writers.formats import write_image, write_segments
    from napari_medreasoner.imaging.writers.segment import Segment

__all__ = [
    "Part",
    "Segment",
    "Volume",
    "cool_down",
    "list_parts",
    "list_parts_sandboxed",
    "read_image",
    "read_sandboxed",
    "warm_up",
    "write_image",
    "write_segments",
]

_HOMES: Final = {
    "Part": "readers.parts",
    "list_parts": "readers.parts",
    "read_image": "readers.reader",
    "list_parts_sandboxed": "sandbox",
    "read_sandboxed": "sandbox",
    "cool_down": "sandbox",
    "warm_up": "sandbox",
    "Volume": "volume",
    "write_image": "writers.formats",
    "write_segments": "writers.formats",
    "Segment": "writers.segment",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562): the child of `sandbox` starts faster without the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
