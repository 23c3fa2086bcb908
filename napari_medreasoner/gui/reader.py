"""Opening files in napari in the right place and size; napari's reader contribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from napari.utils.notifications import show_error, show_warning  # type: ignore[import-untyped]
from qtpy.QtWidgets import QWidget

from napari_medreasoner.core.errors import MedReasonerError, ReadError
from napari_medreasoner.gui.chooser import Choice, choose_parts
from napari_medreasoner.gui.images import METADATA_KEY, LayerNotes, LayerTuple, volume_layer
from napari_medreasoner.gui.waiting import Abandoned, main_window, wait_for
from napari_medreasoner.imaging import Part, list_parts_sandboxed, read_sandboxed
from napari_medreasoner.imaging.readers.kinds import kind_of
from napari_medreasoner.imaging.readers.reader import is_readable

__all__ = ["get_reader"]

Paths = str | Sequence[str]

_WHOLE: Final = Choice()
_NOTHING: Final = [(None,)]
"""How a reader tells napari that there is no layer, and that this is no error."""


def get_reader(path: Paths) -> Callable[[Paths], list[Any]] | None:
    """Return the function that opens these files, or None when one of them is not for us.

    Parameters
    ----------
    path : str or sequence of str
        One or several; napari passes it by this name.
    """
    return _open if all(is_readable(one) for one in _each(path)) else None


def _each(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]


def _open(paths: Paths) -> list[Any]:
    """Open each file as a layer, or several where the user chooses so.

    With a window, a file that is refused is one notification; in a script it is the error.
    """
    window = main_window()
    if window is None:
        return [_noted(_read(path, _WHOLE)) for path in _each(paths)]
    layers: list[Any] = []
    for path in _each(paths):
        try:
            layers += [_noted(layer) for layer in _open_over(window, path)]
        except Abandoned:
            break
        except MedReasonerError as error:
            show_error(str(error))
    return layers or _NOTHING


def _read(path: Path, choice: Choice) -> LayerTuple:
    volume = read_sandboxed(path, part=choice.part, single=choice.single)
    return volume_layer(LayerNotes(volume, modality=volume.modality))


def _noted(layer: LayerTuple) -> LayerTuple:
    """Show what is odd about an image as notifications."""
    volume = layer[1]["metadata"][METADATA_KEY].volume
    for warning in volume.warnings:
        show_warning(f"{volume.name}: {warning}")
    return layer


def _open_over(window: QWidget, path: Path) -> list[LayerTuple]:
    """Open the one image of a path, or else those of its parts that the user chooses."""
    opening = f"Opening {path.name}…"
    try:
        return [wait_for(lambda: _read(path, _WHOLE), opening, window)]
    except ReadError as error:
        refusal = error
    parts = wait_for(lambda: _parts(path, refusal), f"Looking into {path.name}…", window)
    by_slice = path.is_dir() or kind_of(path) == "dicom"
    chosen = choose_parts(parts, path.name, window, by_slice=by_slice)
    return [wait_for(partial(_read, path, choice), opening, window) for choice in chosen]


def _parts(path: Path, refusal: ReadError) -> tuple[Part, ...]:
    """What there is to choose from; the refusal of the whole where there is no choice."""
    try:
        parts = list_parts_sandboxed(path)
    except ReadError:
        raise refusal from None
    if len(parts) == 1 and not parts[0].problem:
        raise refusal
    return parts
