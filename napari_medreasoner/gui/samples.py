"""The sample images as napari layers, one function per case for the manifest."""

from __future__ import annotations

from functools import partial
from typing import Final

from napari_medreasoner.gui.images import LayerNotes, LayerTuple, volume_layer
from napari_medreasoner.imaging.samples import SampleCase, sample_cases

__all__ = [
    "case_layers",
    "ct_left_kidney",
    "ct_liver",
    "fundus_optic_disc",
    "histology_gland",
    "mri_brain_tumour",
]

_CASES: Final = {case.id: case for case in sample_cases()}


def case_layers(case: SampleCase) -> list[LayerTuple]:
    """Return the image of a case as layer data, with its question in the metadata."""
    return [volume_layer(LayerNotes(case.load(), case.question, case.modality, case.slice_index))]


def _open(case_id: str) -> list[LayerTuple]:
    return case_layers(_CASES[case_id])


ct_left_kidney = partial(_open, "ct-left-kidney")
ct_liver = partial(_open, "ct-liver")
mri_brain_tumour = partial(_open, "mri-brain-tumour")
fundus_optic_disc = partial(_open, "fundus-optic-disc")
histology_gland = partial(_open, "histology-gland")
