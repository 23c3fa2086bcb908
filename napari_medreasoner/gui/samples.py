"""The sample images as napari layers, one function per case for the manifest."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from napari_medreasoner.gui.images import METADATA_KEY, LayerNotes
from napari_medreasoner.imaging.samples import SampleCase, sample_cases
from napari_medreasoner.imaging.window import default_window

__all__ = [
    "case_layers",
    "ct_left_kidney",
    "ct_liver",
    "fundus_optic_disc",
    "histology_gland",
    "mri_brain_tumour",
]

LayerTuple = tuple[Any, dict[str, Any], str]

_CASES: Final = {case.id: case for case in sample_cases()}


def case_layers(case: SampleCase) -> list[LayerTuple]:
    """Return the image of a case as layer data, with its question in the metadata."""
    volume = case.load()
    spatial = 3 if volume.is_volume else 2
    rgb = volume.array.ndim > spatial
    notes = LayerNotes(volume, case.question, case.modality, case.slice_index)
    options: dict[str, Any] = {
        "name": case.title,
        "rgb": rgb,
        "metadata": {METADATA_KEY: notes},
    }
    if not rgb:
        options["contrast_limits"] = default_window(volume.array, case.modality)
    if volume.grid.known:
        options["scale"] = volume.grid.spacing[-spatial:]
        options["units"] = ("mm",) * spatial
    return [(volume.array, options, "image")]


def _open(case_id: str) -> list[LayerTuple]:
    return case_layers(_CASES[case_id])


ct_left_kidney = partial(_open, "ct-left-kidney")
ct_liver = partial(_open, "ct-liver")
mri_brain_tumour = partial(_open, "mri-brain-tumour")
fundus_optic_disc = partial(_open, "fundus-optic-disc")
histology_gland = partial(_open, "histology-gland")
