"""Warnings that the pixels themselves may tell who the patient is.

Standard: DICOM PS3.3 C.7.6.1 (BurnedInAnnotation, RecognizableVisualFeatures).
"""

from __future__ import annotations

from typing import Final

from pydicom import Dataset

__all__ = ["BURNED_IN", "RECOGNIZABLE", "identity_warnings"]

BURNED_IN: Final = (
    "The pixels may show the patient's name or other identifying text; look before you share the "
    "image."
)
RECOGNIZABLE: Final = (
    "The image may show the patient's face or another feature they can be known by; look before "
    "you share the image."
)

_OFTEN_WRITTEN_ON: Final = frozenset(("ES", "GM", "IVUS", "OT", "RF", "US", "XA", "XC"))
"""Modalities whose machines usually write names into the picture."""

_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
"""Root of the SOP classes of captured screens and scanned films (PS3.4 B.5)."""


def identity_warnings(ds: Dataset) -> tuple[str, ...]:
    """Sentences for the user, of `BURNED_IN` and `RECOGNIZABLE`.

    Text is warned of when the file says that there is some, and, where it does not say, for
    captured screens and for kinds of image that usually carry it.
    """
    notes = []
    written = _said(ds, "BurnedInAnnotation")
    if written == "YES" or (written != "NO" and _is_often_written_on(ds)):
        notes.append(BURNED_IN)
    if _said(ds, "RecognizableVisualFeatures") == "YES":
        notes.append(RECOGNIZABLE)
    return tuple(notes)


def _said(ds: Dataset, keyword: str) -> str:
    return str(ds.get(keyword) or "").strip().upper()


def _is_often_written_on(ds: Dataset) -> bool:
    kind = f"{ds.get('SOPClassUID') or ''}."
    return str(ds.get("Modality")) in _OFTEN_WRITTEN_ON or kind.startswith(f"{_SECONDARY_CAPTURE}.")
