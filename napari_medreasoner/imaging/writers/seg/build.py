"""Making a DICOM segmentation of headers and masks, and reading it back.

Standard: DICOM PS3.3 A.51 (segmentation IOD) and C.8.20; made with highdicom. Runs in the child
process of `seg.parent` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from napari_medreasoner import __version__
from napari_medreasoner.core.errors import ExportError, ReadError
from napari_medreasoner.imaging.readers.dicom.pixels import frames_of, open_header, reported
from napari_medreasoner.imaging.readers.dicom.printing import COARSEST_MM
from napari_medreasoner.imaging.readers.dicom.stack import POSITION_MM, Place, places_of
from napari_medreasoner.imaging.writers.file_grid import TOLERANCE_MM
from napari_medreasoner.imaging.writers.seg.order import Description, Order
from napari_medreasoner.imaging.writers.segment import Term

__all__ = ["ADVICE", "build"]

ADVICE: Final = "save it as .nii.gz instead"

_PRODUCT: Final = "napari-medreasoner"
_SERIES_NUMBER: Final = 1000
_TEXT: Final = 64  # of LO, PS3.5 section 6.2

_NEEDED: Final = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
)  # fmt: skip
"""What a segmentation must refer to."""

_MAY_BE_EMPTY: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Type 2 in PS3.3 C.7.1.1 and C.7.2.1: to be there, with a value or without."""


def build(order: Order, masks: Sequence[NDArray[np.bool_]]) -> bytes:
    """Make a segmentation, read it back and compare it with what was ordered.

    Parameters
    ----------
    order : Order
        The source frames and what the segments are.
    masks : sequence of ndarray of bool, shape (plane, row, column)
        One for each segment; plane k lies on frame k.

    Returns
    -------
    bytes
        A DICOM Part 10 file.

    Raises
    ------
    ExportError
        When the source files are gone, changed, or lack what a segmentation refers to, or the
        file read back differs. Its text holds nothing that is in the files.
    """
    files = tuple(dict.fromkeys(frame.file for frame in order.frames))
    sources = [_header(file) for file in files]
    places = _places(sources, order)
    _check_unchanged(sources, places, order)
    data = _serialised(_segmentation(sources, order, masks))
    _check(data, masks, places)
    return data


def _header(file: Path) -> Dataset:
    if not file.is_file():
        raise ExportError(
            "The DICOM files that the image was read from are no longer there; open it again, or "
            f"{ADVICE}."
        )
    with _unchanged():
        ds = open_header(file)
        missing = [keyword for keyword in _NEEDED if not ds.get(keyword)]
        for keyword in _MAY_BE_EMPTY:
            ds.setdefault(keyword, None)
        ds.decode()  # so that all text can be written in the character set of the segmentation
    if missing:
        raise ExportError(
            f"The DICOM files lack {missing[0]}, which a segmentation must refer to; {ADVICE}."
        )
    return ds


@contextmanager
def _unchanged() -> Iterator[None]:
    """Take what a reader refuses here, which it did not when the image was read, as a change."""
    try:
        with reported("A DICOM file"):
            yield
    except ReadError:
        raise _changed() from None


def _places(sources: Sequence[Dataset], order: Order) -> list[Place]:
    """Where the planes lie by the source's own headers, in the order of the planes."""
    with _unchanged():
        files = [places_of(ds, "", lenient=True) for ds in sources]
        if len(files) == 1:
            places = [files[0][frame.frame] for frame in order.frames]
        else:
            places = [own[0] for own in files]
    known = [place for place in places if place is not None]
    if len(known) != order.shape[0]:
        raise _changed()
    return known


def _changed() -> ExportError:
    return ExportError(
        f"The DICOM files have changed since the image was read; open it again, or {ADVICE}."
    )


def _ends(place: Place, rows: int, columns: int) -> NDArray[np.float64]:
    """LPS millimetres of the four corner pixels of a plane (PS3.3 C.7.6.2.1.1), shape (4, 3)."""
    return np.array(
        [
            place.corner
            + place.across * place.spacing[1] * column
            + place.down * place.spacing[0] * row
            for row in (0, rows - 1)
            for column in (0, columns - 1)
        ]
    )


def _check_unchanged(sources: Sequence[Dataset], places: Sequence[Place], order: Order) -> None:
    """Compare the headers with the image, to the tolerance that its reader has for a stack."""
    _, rows, columns = order.shape
    if any((ds.Rows, ds.Columns) != (rows, columns) for ds in sources):
        raise _changed()
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(order.affine)
    tolerance = _tolerance(places)
    for plane, place in enumerate(places):
        pixels = [(c, r, plane, 1) for r in (0, rows - 1) for c in (0, columns - 1)]
        read = (to_lps @ np.array(pixels, float).T).T[:, :3]
        if np.abs(_ends(place, rows, columns) - read).max() > tolerance:
            raise _changed()


def _tolerance(places: Sequence[Place]) -> float:
    """How far slices may lie from an even stack, in a coordinate: what their reader accepts."""
    units = np.min([place.units for place in places], axis=0)
    return float(max([POSITION_MM, *(units[units <= COARSEST_MM] / 2)])) + TOLERANCE_MM


def _segmentation(
    sources: Sequence[Dataset], order: Order, masks: Sequence[NDArray[np.bool_]]
) -> highdicom.seg.Segmentation:
    pixels = _pixels(masks)
    if len(sources) == 1:
        # A file of many frames is referred to as a whole; planes without a voxel are left out.
        whole = np.zeros((frames_of(sources[0]), *pixels.shape[1:]), pixels.dtype)
        whole[[frame.frame for frame in order.frames]] = pixels
        pixels = whole
    descriptions = [_described(number, one) for number, one in enumerate(order.segments, 1)]
    try:
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=_PRODUCT,
            manufacturer_model_name=_PRODUCT,
            software_versions=__version__,
            device_serial_number=__version__,
            content_label="SEGMENTATION",
            content_description="Research use only",
            series_description="MedReasoner segmentation",
            specific_character_set="ISO_IR 192",
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - highdicom raises many; messages quote patients' data
        raise ExportError(
            f"No DICOM segmentation can be made of these DICOM files ({type(error).__name__}); "
            f"{ADVICE}."
        ) from None


def _pixels(masks: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    """Masks as highdicom takes them: a label map, or side by side where they overlap."""
    labels = np.zeros(masks[0].shape, np.min_scalar_type(len(masks)))
    for number, mask in enumerate(masks, 1):
        if labels[mask].any():
            return np.stack(masks, axis=-1)
        labels[mask] = number
    return labels


def _described(number: int, segment: Description) -> highdicom.seg.SegmentDescription:
    algorithm = None
    way = "MANUAL"
    if segment.algorithm:
        way = "AUTOMATIC" if segment.automatic else "SEMIAUTOMATIC"
        algorithm = highdicom.AlgorithmIdentificationSequence(
            _text(segment.algorithm), codes.DCM.ArtificialIntelligence, __version__
        )
    label = _text(segment.label) or "Finding"
    description = highdicom.seg.SegmentDescription(
        number,
        label,
        _code(segment.category),
        _code(segment.kind),
        way,
        algorithm,
        tracking_uid=highdicom.UID(),
        tracking_id=f"{label} {number}",
    )
    if segment.side is not None:
        modifier = highdicom.sr.CodedConcept.from_code(_code(segment.side))
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def _text(text: str) -> str:
    """Text that a DICOM LO can hold."""
    return "".join(c for c in text if c.isprintable()).replace("\\", "/").strip()[:_TEXT]


def _code(term: Term) -> Code:
    return Code(term.value, term.scheme, term.meaning)


def _serialised(segmentation: Dataset) -> bytes:
    stream = BytesIO()
    segmentation.save_as(stream)
    return stream.getvalue()


def _check(data: bytes, masks: Sequence[NDArray[np.bool_]], places: Sequence[Place]) -> None:
    """Read a segmentation back: the same voxels, each centre where its source says."""
    seg = highdicom.seg.segread(BytesIO(data))
    frames = seg.pixel_array.reshape(-1, *masks[0].shape[1:])
    awaited = {
        (number, int(plane))
        for number, mask in enumerate(masks)
        for plane in np.flatnonzero(mask.any(axis=(1, 2)))
    }
    corners = np.array([place.corner for place in places])
    found = places_of(seg, "The segmentation", lenient=True)
    for index, (frame, place) in enumerate(zip(frames, found, strict=True)):
        if place is None:
            raise _differs()
        plane = int(np.linalg.norm(corners - place.corner, axis=1).argmin())
        number = _segment_number(seg, index) - 1
        moved = _ends(place, *frame.shape) - _ends(places[plane], *frame.shape)
        same = (number, plane) in awaited and np.array_equal(frame != 0, masks[number][plane])
        if not same or np.linalg.norm(moved, axis=1).max() > TOLERANCE_MM:
            raise _differs()
        awaited.remove((number, plane))
    if awaited:
        raise _differs()


def _segment_number(seg: Dataset, frame: int) -> int:
    for group in (
        seg.PerFrameFunctionalGroupsSequence[frame],
        seg.SharedFunctionalGroupsSequence[0],
    ):
        if "SegmentIdentificationSequence" in group:
            return int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    raise _differs()


def _differs() -> ExportError:
    return ExportError(
        f"The DICOM segmentation read back differs from the masks; nothing was saved: {ADVICE}."
    )
