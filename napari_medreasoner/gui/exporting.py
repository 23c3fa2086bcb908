"""What leaves the session as a file: masks on the file's grid, pictures, reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.corrections import Correction
from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.gui.session import Document
from napari_medreasoner.gui.target import Target
from napari_medreasoner.imaging import Segment, write_segments
from napari_medreasoner.imaging.window import to_rgb, to_uint8
from napari_medreasoner.imaging.writers.corrections import append_correction
from napari_medreasoner.imaging.writers.overlay import write_overlay
from napari_medreasoner.imaging.writers.report import Report, write_report
from napari_medreasoner.imaging.writers.terms import TERMS, Coded

__all__ = ["DICOM_SEG", "KINDS", "Naming", "export", "keep_for_training", "kinds_for"]

DICOM_SEG: Final = ".dcm"

KINDS: Final = {
    "NIfTI mask (*.nii.gz *.nii)": (".nii.gz", ".nii"),
    "NRRD mask (*.nrrd)": (".nrrd",),
    "DICOM segmentation (*.dcm)": (DICOM_SEG,),
    "Picture of the slice on show (*.png)": (".png",),
    "Report of the finding (*.json)": (".json",),
}
"""What there is to choose from in a file dialog, and the suffixes of each."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What a finding is called in a DICOM segmentation."""

    label: str = "Finding"
    coded: Coded = TERMS["tissue"]


def kinds_for(target: Target) -> dict[str, tuple[str, ...]]:
    """Return the `KINDS` that this image can be written as: only DICOM becomes DICOM."""
    return {
        name: suffixes
        for name, suffixes in KINDS.items()
        if DICOM_SEG not in suffixes or target.geometry.frames
    }


def export(path: Path, document: Document, target: Target, naming: Naming) -> None:
    """Write a finding as the file's name says; for any thread but Qt's.

    Parameters
    ----------
    path : Path
        Ends in one of the suffixes of `KINDS`.
    document : Document
        The finding.
    target : Target
        The image, and the slice of it for a picture.
    naming : Naming
        For a DICOM segmentation.

    Raises
    ------
    ExportError
        When there is no mask, the name has another suffix, or writing fails; a file that was
        there before is unchanged.
    """
    mask = document.mask.compose()
    if not mask.any():
        raise ExportError("The mask is empty; ask a question or draw a box first.")
    finding = Segment(
        mask,
        label=naming.label,
        category=naming.coded.category,
        kind=naming.coded.kind,
        side=naming.coded.side,
        algorithm=document.algorithm,
        automatic=document.automatic,
    )
    suffix = path.suffix.lower()
    if suffix == ".png":
        _write_picture(path, document, target, mask)
    elif suffix == ".json":
        _write_report(path, document, target, finding)
    else:
        write_segments(path, [finding], target.volume())


def keep_for_training(folder: Path, document: Document, target: Target) -> None:
    """Add the finding to a correction log; for any thread but Qt's.

    Parameters
    ----------
    folder : Path
        The log.
    document : Document
        The finding.
    target : Target
        The slice of it that is kept, as the model sees it: the one that was asked about.

    Raises
    ------
    ExportError
        When there is nothing on that slice, or writing fails.
    """
    mask = document.mask.compose()
    part = mask if target.plane is None else target.plane.cut(mask)
    if not part.any():
        raise ExportError("There is no mask on the slice you asked about; nothing was kept.")
    picture = BytesIO()
    Image.fromarray(to_rgb(to_uint8(target.source.slice(target.plane), target.window))).save(
        picture, "PNG"
    )
    name = sha256(picture.getvalue() + document.question.encode()).hexdigest()[:32]
    correction = Correction(
        id=name,
        image=f"{name}.png",
        group=target.source.upload().sha256[:32],
        modality=document.modality,
        question=document.question,
        trace=document.trace,
        algorithm=document.algorithm,
        proposed=document.proposed,
        final=document.prompts,
        mask=PackedMask.pack(part),
    )
    append_correction(folder, correction, picture.getvalue())


def _write_picture(path: Path, document: Document, target: Target, mask: NDArray[np.bool_]) -> None:
    """The slice as the model sees it, with the mask on it, and the prompts if they lie there."""
    picture = to_rgb(to_uint8(target.source.slice(target.plane), target.window))
    prompts = document.prompts if document.plane == target.plane else Prompts()
    part = mask if target.plane is None else target.plane.cut(mask)
    write_overlay(path, picture, prompts.box, prompts.points, part)


def _write_report(path: Path, document: Document, target: Target, finding: Segment) -> None:
    """What is known of the finding; the answer only while it is the model's own."""
    prompts = document.prompts
    box = prompts.box if document.automatic else None
    report = Report.of(
        replace(target.volume(), modality=document.modality),
        document.question,
        [finding],
        answer=None if box is None else (box, prompts.points),
        plane=document.plane,
        window=target.window,
        trace=document.trace,
        prompts=prompts,
        score=document.score,
    )
    write_report(path, report)
