"""Grey windows that files ask for, and what they say of the patient in their pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from napari_medreasoner.imaging.readers.dicom.file import read_dicom, read_series
from napari_medreasoner.imaging.readers.dicom.identity import BURNED_IN, RECOGNIZABLE
from napari_medreasoner.imaging.readers.dicom.voi import CURVE, TABLE
from tests.imaging.dicom_series import (
    bundled,
    enhanced,
    enhanced_pixels,
    header,
    save,
    series,
    stored_slice,
)


@pytest.mark.parametrize(
    ("tags", "window"),
    [
        ({"WindowCenter": [40, 600], "WindowWidth": [400, 1500]}, (-160.0, 239.0)),
        (
            {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
            (-160.0, 240.0),
        ),
        ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}, (-160.0, 240.0)),
        ({"WindowCenter": 40, "WindowWidth": 0}, None),
        ({"WindowCenter": 40}, None),
    ],
)
def test_the_window_the_file_asks_for(tmp_path: Path, tags: Any, window: Any) -> None:
    volume = read_dicom(save(tmp_path / "a.dcm", header((0, 0, 0), **tags), stored_slice(0)))
    assert volume.window == window
    assert (CURVE in volume.warnings) == ("SIGMOID" in tags.values())


def table(greys: Any, first: int, bits: int = 16) -> Any:
    """A VOI LUT of one item, as its module has it."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(greys), first, bits])
    item.add_new("LUTData", "OW", np.asarray(greys, "<u2").tobytes())
    return Sequence([item])


RAMP = np.r_[np.zeros(50), np.arange(0, 1001), np.full(50, 1000)]
"""Greys that rise from the 50th entry to the 1050th; the middle 98 of 100 lie in 59..1040."""

TABLES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "rising": (table(RAMP, 100), {}, (160.0, 1140.0)),
    "falling": (table(RAMP[::-1], 100), {}, (160.0, 1140.0)),
    "after rescale": (table(RAMP, -1024), {"RescaleIntercept": -1024}, (-964.0, 16.0)),
    "a step": (table([0] * 10 + [255] * 10, 0), {}, (9.0, 10.0)),
    "flat": (table([7] * 10, 0), {}, None),
    "written as unsigned": (
        table(RAMP, 2**16 - 1024),
        {"RescaleIntercept": -1024},
        (-964.0, 16.0),
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_of_greys_becomes_a_straight_window(tmp_path: Path, case: str) -> None:
    sequence, tags, window = TABLES[case]
    ds = header((0, 0, 0), PixelRepresentation=0, VOILUTSequence=sequence, **tags)
    volume = read_dicom(save(tmp_path / "a.dcm", ds, stored_slice(4).astype(np.uint16)))
    assert volume.window == window
    assert volume.inverted == (case == "falling")
    assert TABLE in volume.warnings


def test_a_falling_table_turns_dark_to_bright_once_more(tmp_path: Path) -> None:
    ds = header((0, 0, 0), PhotometricInterpretation="MONOCHROME1", VOILUTSequence=table([9, 0], 0))
    volume = read_dicom(save(tmp_path / "a.dcm", ds, stored_slice(0)))
    assert volume.window == (0.0, 1.0)
    assert not volume.inverted


def test_a_window_goes_before_a_table(tmp_path: Path) -> None:
    ds = header((0, 0, 0), VOILUTSequence=table(RAMP, 0), WindowCenter=50, WindowWidth=101)
    volume = read_dicom(save(tmp_path / "a.dcm", ds, stored_slice(0)))
    assert volume.window == (-0.5, 99.5)
    assert not volume.warnings


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_a_table_in_other_byte_orders(tmp_path: Path, syntax: UID) -> None:
    ds = header((0, 0, 0), PixelRepresentation=0, VOILUTSequence=table(RAMP, 100))
    ds.file_meta.TransferSyntaxUID = syntax
    words = RAMP.astype("<u2" if syntax.is_little_endian else ">u2")
    ds.VOILUTSequence[0].LUTData = words.tobytes()
    ds.add_new("PixelData", "OW", bytes(60))
    dcmwrite(tmp_path / "a.dcm", ds, enforce_file_format=True)
    assert read_dicom(tmp_path / "a.dcm").window == (160.0, 1140.0)


def test_a_table_of_a_frame(tmp_path: Path) -> None:
    ds = enhanced()
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        frame = Dataset()
        frame.VOILUTSequence = table(RAMP, 100 * number)
        group.FrameVOILUTSequence = [frame]
    volume = read_dicom(save(tmp_path / "a.dcm", ds, enhanced_pixels()))
    assert volume.window == (160.0, 1140.0)
    assert volume.warnings == (TABLE,)


def test_a_table_from_elsewhere() -> None:
    volume = read_dicom(bundled("vlut_04.dcm"))
    assert volume.window is not None
    black, white = volume.window
    assert 0 <= black < white <= 255
    assert TABLE in volume.warnings


def test_a_series_is_warned_of_once(tmp_path: Path) -> None:
    files = series(tmp_path / "in", VOILUTSequence=table(RAMP, 0), BurnedInAnnotation="YES")
    assert read_series(files, "head").warnings == (TABLE, BURNED_IN)


SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("tags", "warnings"),
    [
        ({}, ()),
        ({"BurnedInAnnotation": "YES"}, (BURNED_IN,)),
        ({"BurnedInAnnotation": "NO", "Modality": "US"}, ()),
        ({"Modality": "US"}, (BURNED_IN,)),
        ({"Modality": "US", "BurnedInAnnotation": ""}, (BURNED_IN,)),
        ({"Modality": "MR"}, ()),
        ({"SOPClassUID": SECONDARY_CAPTURE}, (BURNED_IN,)),
        ({"SOPClassUID": f"{SECONDARY_CAPTURE}.4"}, (BURNED_IN,)),
        ({"SOPClassUID": f"{SECONDARY_CAPTURE}7.1"}, ()),
        ({"RecognizableVisualFeatures": "YES"}, (RECOGNIZABLE,)),
        ({"RecognizableVisualFeatures": "NO"}, ()),
        ({"RecognizableVisualFeatures": "YES", "Modality": "XC"}, (BURNED_IN, RECOGNIZABLE)),
    ],
)
def test_pixels_that_may_name_the_patient(tmp_path: Path, tags: Any, warnings: Any) -> None:
    volume = read_dicom(save(tmp_path / "a.dcm", header((0, 0, 0), **tags), stored_slice(0)))
    assert volume.warnings == warnings
