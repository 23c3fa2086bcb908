"""All that is known of a finding but its pixels, as JSON: no file name, no patient.

Free text in it is what the user or a model wrote. Text that says where an image came from is there
only when the caller passes it on purpose (`source`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from napari_medreasoner import __version__
from napari_medreasoner.core.geometry import Box, Point, Prompts, SlicePlane
from napari_medreasoner.core.protocol import Sha256, content_hash
from napari_medreasoner.imaging.measures import Measures, measure
from napari_medreasoner.imaging.orientation import axis_letters
from napari_medreasoner.imaging.volume import Volume
from napari_medreasoner.imaging.writers.atomic import write_text
from napari_medreasoner.imaging.writers.segment import Segment, Term

__all__ = ["Geometry", "Report", "ReportedFinding", "write_report"]

_NOTICE: Final = "Research use only; not for diagnosis."

_Matrix = tuple[tuple[float, ...], ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Geometry(_Part):
    """Where the voxels lie.

    Attributes
    ----------
    shape : tuple of int
        (slice, row, column), as displayed.
    known : bool
        Whether the file said so; otherwise one millimetre a pixel is assumed.
    spacing_mm : tuple of float
        Along (slice, row, column).
    affine_ras, affine_lps : tuple
        4 x 4, displayed (column, row, slice) to millimetres as in NIfTI, and as in DICOM.
    file_axes : str or None
        Directions of the file's own axes, as in "LPS"; None when there is no file.
    """

    shape: tuple[int, int, int]
    known: bool
    spacing_mm: tuple[float, float, float]
    affine_ras: _Matrix
    affine_lps: _Matrix
    file_axes: str | None

    @classmethod
    def of(cls, volume: Volume) -> Self:
        """Describe an image's grid."""
        grid, source = volume.grid, volume.source
        return cls(
            shape=grid.shape,
            known=grid.known,
            spacing_mm=grid.spacing,
            affine_ras=_rows(grid.affine),
            affine_lps=_rows(grid.affine_lps),
            file_axes=axis_letters(source.affine) if source else None,
        )


class ReportedFinding(_Part):
    """One segment: what it is called, who made it, how large it is."""

    label: str
    category: Term
    kind: Term
    side: Term | None
    algorithm: str
    measures: Measures
    mask_sha256: Sha256

    @classmethod
    def of(cls, segment: Segment, volume: Volume) -> Self:
        """Measure a segment on its image's grid."""
        return cls(
            label=segment.label,
            category=segment.category,
            kind=segment.kind,
            side=segment.side,
            algorithm=segment.algorithm,
            measures=measure(segment.mask, volume.grid),
            mask_sha256=content_hash(np.ascontiguousarray(segment.mask)),
        )


class Report(_Part):
    """One question about one image, its answer, and what was made of it.

    Attributes
    ----------
    schema_version : int
        Grows when a field changes its meaning or goes.
    plane : SlicePlane or None
        The slice asked about, "slice" in JSON; None for a 2D image.
    window : (float, float) or None
        Intensities shown as black and as white.
    bbox, points : tuple or None
        What the reasoner answered: (x1, y1, x2, y2), max-exclusive, and (x, y), in pixels of
        the slice; None without an answer.
    prompts : Prompts
        What the masks were made from, after the user's corrections.
    score : float or None
        How sure the segmenter was, 0 to 1.
    timings_ms : dict
        By name.
    engines, versions : dict
        Names of "crm" and "asm"; versions by the same names, as far as known.
    version : str
        Of this package.
    warnings : tuple of str
        How the image was read; file names are taken out.
    source : str or None
        What the caller says of where the image came from.
    """

    schema_version: Literal[1] = 1
    notice: str = _NOTICE
    question: str
    modality: str
    plane: SlicePlane | None = Field(default=None, alias="slice")
    window: tuple[float, float] | None = None
    trace: str = ""
    bbox: tuple[int, int, int, int] | None = None
    points: tuple[tuple[int, int], ...] | None = None
    prompts: Prompts = Prompts()
    score: float | None = None
    geometry: Geometry
    findings: tuple[ReportedFinding, ...] = ()
    image_sha256: Sha256
    timings_ms: dict[str, float] = {}
    engines: dict[str, str] = {}
    versions: dict[str, str] = {}
    version: str = __version__
    warnings: tuple[str, ...] = ()
    source: str | None = None

    @classmethod
    def of(
        cls,
        volume: Volume,
        question: str,
        segments: Sequence[Segment] = (),
        *,
        answer: tuple[Box, Sequence[Point]] | None = None,
        **more: Any,
    ) -> Self:
        """Gather a report.

        Parameters
        ----------
        volume : Volume
            The image; its name and its files are not reported.
        question : str
            As asked.
        segments : sequence of Segment
            The findings, measured here.
        answer : (Box, sequence of Point), optional
            What the reasoner answered.
        **more
            Fields of `Report` by name: plane, window, trace, prompts, score, timings_ms,
            engines, versions, source.
        """
        if answer is not None:
            more["bbox"] = answer[0].corners
            more["points"] = tuple((point.x, point.y) for point in answer[1])
        return cls(
            question=question,
            modality=volume.modality,
            geometry=Geometry.of(volume),
            findings=tuple(ReportedFinding.of(segment, volume) for segment in segments),
            image_sha256=content_hash(np.ascontiguousarray(volume.array)),
            warnings=tuple(_nameless(warning, volume) for warning in volume.warnings),
            **more,
        )


def _rows(matrix: NDArray[np.float64]) -> _Matrix:
    return tuple(map(tuple, matrix.tolist()))


def _nameless(warning: str, volume: Volume) -> str:
    """A reader's warning without the names of the files it is about: they can name a patient."""
    names = {frame.file.name for frame in volume.frames} | {volume.name}
    for name in sorted(filter(None, names), key=len, reverse=True):
        warning = re.sub(rf"(?<!\w){re.escape(name)}(\.\w+)*(?!\w)", "The file", warning)
    return warning


def write_report(path: Path, report: Report) -> None:
    """Write a report as JSON, atomically.

    Raises
    ------
    ExportError
        When the file cannot be written; one that was there before is unchanged.
    """
    write_text(path, report.model_dump_json(indent=2, by_alias=True) + "\n")
