"""Opening files in napari in the right place and size; napari's reader contribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari.utils.notifications import show_warning  # type: ignore[import-untyped]

from napari_medreasoner.gui.images import LayerNotes, LayerTuple, volume_layer
from napari_medreasoner.imaging import read_sandboxed
from napari_medreasoner.imaging.readers.reader import is_readable

__all__ = ["get_reader"]

Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerTuple]] | None:
    """Return the function that opens these files, or None when one of them is not for us.

    Parameters
    ----------
    path : str or sequence of str
        One or several; napari passes it by this name.
    """
    return _open if all(is_readable(one) for one in _each(path)) else None


def _each(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]


def _open(paths: Paths) -> list[LayerTuple]:
    """Open each file as a layer; what is odd about it is shown as a notification."""
    layers = []
    for path in _each(paths):
        volume = read_sandboxed(path)
        for warning in volume.warnings:
            show_warning(f"{volume.name}: {warning}")
        layers.append(volume_layer(LayerNotes(volume, modality=volume.modality)))
    return layers
