"""A finding out of the widget, as every kind of file."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from qtpy.QtWidgets import QDialog, QMessageBox

from napari_medreasoner.gui import export_dialog, widget
from napari_medreasoner.gui.export_dialog import NamingDialog, ask_path
from napari_medreasoner.gui.exporting import DICOM_SEG, KINDS, kinds_for
from tests.gui.doubles import prompts
from tests.imaging.dicom_series import series

PLUGIN = "napari-medreasoner"


@pytest.fixture
def finding(docked, viewer, qtbot, tmp_path):
    """A box segmented on the middle slice of a DICOM series."""
    series(tmp_path / "series", StudyInstanceUID="1.2.5")
    (image,) = viewer.open(tmp_path / "series", plugin=PLUGIN)
    view = docked.workspace.view
    plane = view.shown().plane
    docked.workspace.controller.correct(view.source, prompts(1, 1, 3, 4), plane, final=True)
    qtbot.waitUntil(lambda: f"{image.name} mask" in viewer.layers)
    qtbot.waitUntil(docked.correction_panel.export.isEnabled)
    return docked


@pytest.fixture
def save_as(monkeypatch, finding, qtbot, tmp_path):
    """Press Export and type a name; return the file."""

    def save(name):
        path = tmp_path / name
        monkeypatch.setattr(
            export_dialog.QFileDialog, "getSaveFileName", lambda *_: (str(path), "")
        )
        finding.correction_panel.export.click()
        session = finding.workspace.session
        qtbot.waitUntil(lambda: session.status.startswith(("Saved", "Not saved")), timeout=20_000)
        assert session.error == ""
        assert session.status == f"Saved {path}"
        return path

    return save


def test_masks_pictures_and_reports(finding, save_as, viewer):
    document = finding.workspace.session.document
    mask = document.mask.compose()
    saved = np.asanyarray(nib.load(save_as("mask.nii.gz")).dataobj)
    assert np.count_nonzero(saved) == mask.sum() == 6
    assert save_as("mask.nrrd").read_bytes().startswith(b"NRRD")
    with Image.open(save_as("slice.png")) as picture:
        assert picture.mode == "RGB"
        shown = np.asarray(picture)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 3
    report = json.loads(save_as("report.json").read_text())
    assert report["findings"][0]["measures"]["voxels"] == 6
    assert report["findings"][0]["algorithm"] == "cutter (1.2)"
    assert report["prompts"]["box"] == {"x1": 1, "y1": 1, "x2": 3, "y2": 4}
    assert "Doe" not in json.dumps(report)


def test_a_dicom_segmentation_asks_what_it_is_called(save_as, monkeypatch):
    asked = []

    def accept(dialog):
        dialog.label.setText("Spleen, enlarged")
        dialog.term.setCurrentText("spleen")
        asked.append(dialog.naming())
        return QDialog.DialogCode.Accepted

    monkeypatch.setattr(widget.NamingDialog, "exec", accept)
    import pydicom

    segment = pydicom.dcmread(save_as("mask.dcm")).SegmentSequence[0]
    assert segment.SegmentLabel == "Spleen, enlarged"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Spleen"
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert "cutter" in segment.SegmentAlgorithmName
    assert len(asked) == 1


def test_only_an_image_from_dicom_is_offered_as_dicom(finding, viewer):
    view = finding.workspace.view
    assert kinds_for(view.shown()) == KINDS
    viewer.add_image(np.arange(12).reshape(3, 4), name="plain")
    view.choose(viewer.layers["plain"])
    offered = kinds_for(view.shown())
    assert (DICOM_SEG,) not in offered.values()
    assert len(offered) == len(KINDS) - 1


@pytest.mark.parametrize(
    ("typed", "chosen", "path"),
    [
        ("a", "NRRD mask (*.nrrd)", "a.nrrd"),
        ("a", "", "a.nii.gz"),
        ("a.NII", "NRRD mask (*.nrrd)", "a.NII"),
        ("a.v2", "Report of the finding (*.json)", "a.v2.json"),
        ("", "", None),
    ],
)
def test_a_name_gets_the_suffix_of_the_kind(monkeypatch, typed, chosen, path):
    monkeypatch.setattr(export_dialog.QFileDialog, "getSaveFileName", lambda *_: (typed, chosen))
    found = ask_path(None, KINDS)
    assert (None if found is None else str(found)) == path


@pytest.mark.parametrize("answer", [QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No])
def test_a_file_that_the_suffix_leads_to_is_asked_about(monkeypatch, tmp_path, answer):
    (tmp_path / "a.nrrd").write_bytes(b"old")
    typed = str(tmp_path / "a"), "NRRD mask (*.nrrd)"
    monkeypatch.setattr(export_dialog.QFileDialog, "getSaveFileName", lambda *_: typed)
    monkeypatch.setattr(export_dialog.QMessageBox, "question", lambda *_: answer)
    replaced = ask_path(None, KINDS)
    assert replaced == (tmp_path / "a.nrrd" if answer == QMessageBox.StandardButton.Yes else None)


def test_a_label_is_never_empty_nor_too_long(qtbot):
    dialog = NamingDialog()
    qtbot.addWidget(dialog)
    assert dialog.naming().coded.kind.meaning == "Tissue"
    dialog.label.setText("  ")
    assert dialog.naming().label == "Finding"
    dialog.label.setText("x" * 99)
    assert len(dialog.naming().label) == 64
