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
from napari_medreasoner.imaging.writers.file_grid import in_file_order
from napari_medreasoner.imaging.writers.segment import Segment

__all__ = ["IMAGE_SUFFIXES", "SEGMENT_SUFFIXES", "write_image", "write_segments"]

_DICOM: Final = ".dcm"
_NRRD: Final = ".nrrd"
_PNG: Final = ".png"

SEGMENT_SUFFIXES: Final = (".nii.gz", ".nii", _NRRD, _DICOM)
"""Kinds of file that findings are written to; .dcm is a DICOM segmentation."""

IMAGE_SUFFIXES: Final = (".nii.gz", ".nii", _NRRD, _PNG)
"""Kinds of file that images are written to."""


def write_image(path: Path, volume: Volume) -> None:
    """Write an image in the axes and on the grid of the file it came from.

    Intensities and element type stay as they are. A PNG holds a 2D image as it is shown.

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
    name = _checked_name(path, IMAGE_SUFFIXES)
    if name.endswith(_PNG):
        from napari_medreasoner.imaging.writers.png import write_png

        write_png(path, volume.array)
    else:
        _write_grid(path, volume.array if volume.is_volume else volume.array[None], volume)


def write_segments(path: Path, segments: Sequence[Segment], volume: Volume) -> None:
    """Write findings on the grid of the file the image came from.

    NIfTI and NRRD hold a label map of the segments' values, so that they may not overlap; a
    DICOM segmentation holds each by itself, and needs an image that came from DICOM.

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
        When there is nothing to write, a mask is empty or does not fit, the name has another
        suffix, the format cannot hold them, or writing fails; a file that was there before is
        unchanged.
    """
    name = _checked_name(path, SEGMENT_SUFFIXES)
    _check_segments(segments, volume)
    if name.endswith(_DICOM):
        from napari_medreasoner.imaging.writers.seg.parent import write_seg

        write_seg(path, segments, volume)
    else:
        _write_grid(path, _label_map(segments, volume), volume)


def _checked_name(path: Path, suffixes: tuple[str, ...]) -> str:
    name = path.name.lower()
    if not name.endswith(suffixes):
        raise ExportError(
            f'"{path.name}" must end in one of {", ".join(suffixes)}; choose such a name.'
        )
    return name


def _write_grid(path: Path, shown: NDArray[Any], volume: Volume) -> None:
    """Write (slice, row, column[, 3]) to a format that holds a grid."""
    image = in_file_order(shown, volume)
    if path.name.lower().endswith(NIFTI):
        from napari_medreasoner.imaging.writers.nifti import write_nifti

        write_nifti(path, image)
    else:
        from napari_medreasoner.imaging.writers.nrrd import write_nrrd

        write_nrrd(path, image, known=volume.grid.known)


def _check_segments(segments: Sequence[Segment], volume: Volume) -> None:
    if not segments:
        raise ExportError("There is no finding to save; segment something first.")
    shapes = [volume.grid.shape, volume.grid.shape[1:]][: 1 + (not volume.is_volume)]
    for segment in segments:
        if segment.mask.shape not in shapes:
            raise ExportError(
                f'The mask of "{segment.label}" has the shape {segment.mask.shape}, the image '
                f"{volume.grid.shape}; segment again."
            )
        if not segment.mask.any():
            raise ExportError(
                f'"{segment.label}" is empty: nothing was segmented; segment it again or leave it '
                "out."
            )


def _label_map(segments: Sequence[Segment], volume: Volume) -> NDArray[Any]:
    """(slice, row, column) with each segment's value; the smallest type that holds them."""
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values) or min(values) < 1:
        raise ExportError(
            "Two findings share a label value, or one has none; give each a number of its own."
        )
    labels = np.zeros(volume.grid.shape, np.min_scalar_type(max(values)))
    for segment in segments:
        mask = segment.mask.reshape(labels.shape)
        if labels[mask].any():
            raise ExportError(
                f'"{segment.label}" overlaps another finding, which a label map cannot hold; save '
                "the findings one by one, or as a DICOM segmentation (.dcm)."
            )
        labels[mask] = segment.value
    return labels
