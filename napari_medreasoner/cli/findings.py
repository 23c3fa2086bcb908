"""What came of one question: gathered from the event stream, written as four files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import error_from_code
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.protocol import (
    AnswerEvent,
    DoneEvent,
    ErrorEvent,
    Event,
    MaskEvent,
    SliceEvent,
    ThinkEvent,
)
from napari_medreasoner.imaging import Segment, Volume, write_segments
from napari_medreasoner.imaging.window import default_window, to_rgb, to_uint8
from napari_medreasoner.imaging.writers.atomic import make_folder, write_text
from napari_medreasoner.imaging.writers.overlay import write_overlay
from napari_medreasoner.imaging.writers.report import Report, write_report

__all__ = ["FILES", "Asked", "Finding", "Growth", "save_finding"]

FILES: Final = ("trace.txt", "answer.json", "mask.nii.gz", "overlay.png")
_GROUPS: Final = ("napari_medreasoner.reasoners", "napari_medreasoner.segmenters")


@dataclass(frozen=True)
class Asked:
    """A question about one slice of an image.

    Attributes
    ----------
    volume : Volume
        The image.
    question : str
        As typed.
    plane : SlicePlane or None
        None for a 2D image.
    chosen_window : (float, float) or None
        Grey window the user chose; None takes `default_window` of the whole image.
    """

    volume: Volume
    question: str
    plane: SlicePlane | None
    chosen_window: tuple[float, float] | None = None

    @cached_property
    def window(self) -> tuple[float, float]:
        """Intensities shown as black and as white."""
        return self.chosen_window or default_window(self.volume)

    @cached_property
    def picture(self) -> NDArray[np.uint8]:
        """What the models see: (row, column, 3)."""
        array = self.volume.array
        return to_rgb(to_uint8(self.plane.cut(array) if self.plane else array, self.window))


@dataclass(slots=True)
class Finding:
    """The events of one question, gathered.

    Attributes
    ----------
    trace : str
        The reasoning so far.
    answer, mask, done : Event or None
        None until they arrived.
    """

    trace: str = ""
    answer: AnswerEvent | None = None
    mask: MaskEvent | None = None
    done: DoneEvent | None = None

    def add(self, event: Event) -> None:
        """Take the next event.

        Raises
        ------
        MedReasonerError
            The one an error event stands for.
        """
        match event:
            case ThinkEvent():
                self.trace += event.text
            case AnswerEvent():
                self.answer = event
            case MaskEvent():
                self.mask = event
            case DoneEvent():
                self.done = event
            case ErrorEvent():
                raise error_from_code(event.code, event.message)


class Growth:
    """The mask of a volume, gathered slice by slice.

    Parameters
    ----------
    shape : tuple of int
        Of the volume, (slice, row, column).
    axis : int
        Along which it is followed.
    """

    def __init__(self, shape: tuple[int, ...], axis: int) -> None:
        self.mask = np.zeros(shape, np.bool_)
        self._slices = np.moveaxis(self.mask, axis, 0)

    def add(self, event: Event) -> None:
        """Take the next event.

        Raises
        ------
        MedReasonerError
            The one an error event stands for.
        """
        match event:
            case SliceEvent():
                self._slices[event.index] = event.mask.unpack()
            case ErrorEvent():
                raise error_from_code(event.code, event.message)


def _on_grid(asked: Asked, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask of the slice on the whole image's grid."""
    if asked.plane is None:
        return mask
    whole = np.zeros(asked.volume.grid.shape, dtype=np.bool_)
    whole[asked.plane.selector(whole.shape)] = mask
    return whole


def _segment(mask: NDArray[np.bool_], engines: dict[str, str]) -> Segment:
    models = ", ".join(f"{name} {version}" for name, version in _versions(engines).items())
    return Segment(mask, algorithm=models, automatic=True)


def _versions(engines: dict[str, str]) -> dict[str, str]:
    """Version of the package that brings each engine, by the engine's name."""
    found = {
        entry.name: entry.dist.version
        for group in _GROUPS
        for entry in entry_points(group=group)
        if entry.dist is not None
    }
    return {name: found[name] for name in engines.values() if name in found}


def _report(
    asked: Asked, finding: Finding, engines: dict[str, str], segments: list[Segment]
) -> Report:
    answer, done = finding.answer, finding.done
    prompts = Prompts(box=answer.box, points=answer.points) if answer else Prompts()
    return Report.of(
        asked.volume,
        asked.question,
        segments,
        answer=(answer.box, answer.points) if answer else None,
        plane=asked.plane,
        window=asked.window,
        trace=finding.trace,
        prompts=prompts,
        score=finding.mask.score if finding.mask else None,
        timings_ms=done.model_dump(exclude={"type", "trace_sha256"}) if done else {},
        engines=engines,
        versions=_versions(engines),
    )


def save_finding(
    folder: Path,
    asked: Asked,
    finding: Finding,
    engines: dict[str, str],
    grown: NDArray[np.bool_] | None = None,
) -> None:
    """Write `FILES` into a folder; each is replaced whole or not at all.

    Parameters
    ----------
    folder : Path
        Made when it is missing.
    asked, finding : Asked, Finding
        What was asked and what came of it. Without a mask only trace and answer are written.
    engines : dict
        Names of "crm" and "asm", for the report.
    grown : ndarray of bool, shape (slice, row, column), or None
        The mask of the whole volume, where it was grown from the slice.

    Raises
    ------
    ExportError
        When the folder or a file cannot be written.
    """
    make_folder(folder)
    mask = grown
    if mask is None and finding.mask is not None:
        mask = _on_grid(asked, finding.mask.mask.unpack())
    segments = [] if mask is None else [_segment(mask, engines)]
    write_text(folder / "trace.txt", finding.trace + "\n")
    write_report(folder / "answer.json", _report(asked, finding, engines, segments))
    if not segments or finding.mask is None or finding.answer is None:
        return
    write_segments(folder / "mask.nii.gz", segments, asked.volume)
    box, points = finding.answer.box, finding.answer.points
    on_slice = finding.mask.mask.unpack()
    write_overlay(folder / "overlay.png", asked.picture, box, points, on_slice)
