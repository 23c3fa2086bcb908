"""One way out for images and findings: by the target's name to the writer that knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.readers.kinds import NIFTI
from napari_medreasoner.imaging.volume import Volume
from napari_medreasoner.imaging.writers.segment import Segment

__all__ = ["IMAGE_SUFFIXES", "SEGMENT_SUFFIXES", "write_image", "write_segments"]

SEGMENT_SUFFIXES: Final = (".nii.gz", ".nii")
"""Kinds of file that findings are written to."""

IMAGE_SUFFIXES: Final = (".nii.gz", ".nii")
"""Kinds of file that images are written to."""


def write_image(path: Path, volume: Volume) -> None:
    """Write an image in the axes and on the grid of the file it came from.

    Intensities and element type stay as they are.

    Parameters
    ----------
    path : Path
        Ends in one of `IMAGE_SUFFIXES`.
    volume : Volume
        The image.

    Raises
    ------
    ExportError
        When the name has another suffix, the format cannot hold the image, or writing fails; a
        file that was there before is unchanged.
    """
    array = volume.array
    _write(path, array if volume.is_volume else array[None], volume, IMAGE_SUFFIXES)


def write_segments(path: Path, segments: Sequence[Segment], volume: Volume) -> None:
    """Write findings on the grid of the file the image came from.

    Parameters
    ----------
    path : Path
        Ends in one of `SEGMENT_SUFFIXES`.
    segments : sequence of Segment
        One for each finding.
    volume : Volume
        The image they belong to.

    Raises
    ------
    ExportError
        When there is nothing to write, a mask does not fit, the name has another suffix, the
        format cannot hold them, or writing fails; a file that was there before is unchanged.
    """
    if not segments:
        raise ExportError("There is no finding to save; segment something first.")
    _write(path, _label_map(segments, volume), volume, SEGMENT_SUFFIXES)


def _write(path: Path, shown: NDArray[Any], volume: Volume, suffixes: tuple[str, ...]) -> None:
    name = path.name.lower()
    if not name.endswith(suffixes):
        raise ExportError(
            f'"{path.name}" must end in one of {", ".join(suffixes)}; choose such a name.'
        )
    if name.endswith(NIFTI):
        from napari_medreasoner.imaging.writers.nifti import write_nifti

        write_nifti(path, shown, volume)


def _label_map(segments: Sequence[Segment], volume: Volume) -> NDArray[Any]:
    """(slice, row, column) with each segment's value; the smallest type that holds them."""
    highest = max(segment.value for segment in segments)
    labels = np.zeros(volume.grid.shape, np.min_scalar_type(highest))
    for segment in segments:
        mask = segment.mask[None] if segment.mask.ndim == 2 else segment.mask
        if mask.shape != labels.shape:
            raise ExportError(
                f"The mask has the shape {segment.mask.shape}, the image {labels.shape}; "
                "segment again."
            )
        if labels[mask].any():
            raise ExportError(
                f'"{segment.label}" overlaps another finding, which a label map cannot hold; save '
                "the findings one by one."
            )
        labels[mask] = segment.value
    return labels
