"""`medreasoner convert`: any image that is read, to any file that is written, on the same grid."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from napari_medreasoner.cli.inspect import Single, WhichPart
from napari_medreasoner.core.errors import ImageError, SettingsError
from napari_medreasoner.imaging import (
    Segment,
    Volume,
    read_sandboxed,
    write_image,
    write_segments,
)
from napari_medreasoner.imaging.orientation import corners
from napari_medreasoner.imaging.writers.file_grid import TOLERANCE_MM

__all__ = ["convert"]

_MAX_LABELS: Final = 255
_SEGMENTATION: Final = ".dcm"


def convert(
    source: Annotated[Path, typer.Argument(help="Image or mask: file or DICOM folder.")],
    target: Annotated[
        Path,
        typer.Argument(
            help="File to write: .nii.gz, .nii, .nrrd, .png, or .dcm for a DICOM segmentation of "
            "a mask, which needs --like."
        ),
    ],
    like: Annotated[
        Path | None,
        typer.Option(help="Image that lies on the same grid: the result gets its file's axes."),
    ] = None,
    part: WhichPart = None,
    single: Single = None,
) -> None:
    """Write an image or a mask in another format, voxel for voxel, never resampled.

    With --like, --part and --single choose in that image.
    """
    is_seg = target.name.lower().endswith(_SEGMENTATION)
    if is_seg and like is None:
        raise SettingsError(
            "A DICOM segmentation needs the DICOM series the mask belongs to; name it with --like."
        )
    if like is None:
        volume = read_sandboxed(source, part=part, single=single)
    else:
        shown = read_sandboxed(source)
        volume = _on_grid(shown, read_sandboxed(like, part=part, single=single))
    if is_seg:
        write_segments(target, _segments(volume), volume)
    else:
        write_image(target, volume)
    sys.stdout.write(f"Wrote {target}.\n")


def _on_grid(shown: Volume, like: Volume) -> Volume:
    """The voxels of one image on the grid of another; refused where the two grids differ."""
    if shown.grid.shape != like.grid.shape:
        raise ImageError(
            f"The two images have different sizes ({_size(shown)} and {_size(like)} voxels); "
            "resample one of them first."
        )
    ends = corners(like.grid.shape[::-1])
    moved = (ends @ (shown.grid.affine - like.grid.affine).T)[:, :3]
    farthest = float(np.linalg.norm(moved, axis=1).max())
    if farthest > TOLERANCE_MM:
        raise ImageError(
            f"The two images lie up to {farthest:.4g} mm apart; only voxels on the same grid can "
            "be taken over, so resample one of them first."
        )
    return replace(like, array=shown.array)


def _size(volume: Volume) -> str:
    return " x ".join(map(str, volume.grid.shape))


def _segments(volume: Volume) -> list[Segment]:
    """One segment for each value of a label map, but zero."""
    array = volume.array
    values = np.unique(array) if array.dtype.kind in "bui" and not volume.is_rgb else array[:0]
    labels = [int(value) for value in values if value]
    if not labels or labels[0] < 0 or len(labels) > _MAX_LABELS:
        raise ImageError(
            f"A mask holds whole numbers from 0, with 1 to {_MAX_LABELS} labels; this image is "
            "none, so segment it first."
        )
    return [Segment(array == label, label, f"Label {label}") for label in labels]
