"""DICOM slices, series and enhanced images made for tests."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

ROWS, COLUMNS, COUNT = 6, 5, 4
SPACING = (1.25, 0.75)
STEP = 2.5
ANGLE = np.deg2rad(25)
AXIAL = (1, 0, 0, 0, 1, 0)
OBLIQUE = (1, 0, 0, 0, float(np.cos(ANGLE)), float(np.sin(ANGLE)))
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL_NEGATIVE = (-1, 0, 0, 0, 0, -1)
PATIENT = "Doe^Jane"


def normal_of(orientation: Any) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def header(position: Any, orientation: Any = AXIAL, **tags: Any) -> FileDataset:
    """A CT slice without pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.PatientName = PATIENT
    ds.PatientID = "4711"
    ds.Modality = "CT"
    ds.SeriesInstanceUID = "1.2.3"
    ds.FrameOfReferenceUID = "1.2.4"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = ROWS, COLUMNS, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    if position is not None:
        ds.ImagePositionPatient = [float(f"{x:.10g}") for x in position]
        ds.ImageOrientationPatient = [float(f"{x:.12g}") for x in orientation]
        ds.PixelSpacing = list(SPACING)
        ds.SliceThickness = 3.0
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def save(path: Path, ds: FileDataset, stored: np.ndarray) -> Path:
    ds.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    ds["PixelData"].VR = "OB" if stored.itemsize == 1 else "OW"
    ds.save_as(path, enforce_file_format=True)
    return path


def stored_slice(number: int) -> np.ndarray:
    """Values that occur but once in a series."""
    first = number * ROWS * COLUMNS - 100
    return np.arange(first, first + ROWS * COLUMNS, dtype=np.int16).reshape(ROWS, COLUMNS)


def series(folder: Path, orientation: Any = AXIAL, offsets: Any = None, **tags: Any) -> list[Path]:
    """One file for each offset (mm, of three numbers or along the normal)."""
    folder.mkdir(exist_ok=True)
    corner = np.array((-20.5, 12.25, 7.0))
    offsets = np.arange(COUNT) * STEP if offsets is None else offsets
    files = []
    for number, offset in enumerate(offsets):
        place = corner + (
            np.ones(1) * offset if np.ndim(offset) else offset * normal_of(orientation)
        )
        own = {
            key: value[number] if isinstance(value, tuple) else value for key, value in tags.items()
        }
        files.append(
            save(folder / f"{number}.dcm", header(place, orientation, **own), stored_slice(number))
        )
    return files


def enhanced(count: int = 3, **content: Any) -> FileDataset:
    """An Enhanced CT whose frames are stored from the top down, each with its own rescale."""
    ds = header(None)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = count
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), 9.0
    plane.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for number in range(count):
        group, position, rescale, frame, window = (Dataset() for _ in range(5))
        position.ImagePositionPatient = [1.0, 2.0, 30.0 - 2 * number]
        rescale.RescaleSlope, rescale.RescaleIntercept = number + 1, -1024 + number
        window.WindowCenter, window.WindowWidth = 40 + number, 400
        frame.StackID, frame.InStackPositionNumber = "1", number + 1
        for keyword, values in content.items():
            setattr(frame, keyword, values[number])
        group.PlanePositionSequence = [position]
        group.PixelValueTransformationSequence = [rescale]
        group.FrameVOILUTSequence = [window]
        group.FrameContentSequence = [frame]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    return ds


def enhanced_pixels(count: int = 3) -> np.ndarray:
    return np.stack([stored_slice(number) for number in range(count)])


def bundled(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


class Panic(BaseException):
    """As a codec written in Rust raises."""
