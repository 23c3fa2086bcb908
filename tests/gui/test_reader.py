"""Files opened in a real viewer by the plugin's own reader."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from napari_medreasoner.gui.images import geometry_of
from napari_medreasoner.gui.reader import get_reader
from napari_medreasoner.imaging.samples import sample_folder

KIDNEY = sample_folder() / "ct-left-kidney.nii.gz"
PLUGIN = "napari-medreasoner"


@pytest.mark.parametrize("name", ["x.txt", "no-such-file", "x.zarr"])
def test_what_is_not_ours_is_left_to_others(tmp_path, name):
    if "." in name:
        (tmp_path / name).write_text("text")
    assert get_reader(str(tmp_path / name)) is None
    assert get_reader([str(KIDNEY), str(tmp_path / name)]) is None


def test_only_a_folder_with_dicom_is_ours(tmp_path):
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / "0").write_bytes(b"chunk")
    assert get_reader(str(tmp_path / "store.zarr")) is None
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / "store.zarr")
    assert get_reader(str(tmp_path / "store.zarr")) is not None


def test_a_volume_opens_in_its_place_and_size(viewer):
    (layer,) = viewer.open(KIDNEY, plugin=PLUGIN)
    assert layer.data.shape == (44, 101, 122)
    assert layer.scale.tolist() == pytest.approx([3, 3, 3])
    assert {str(unit) for unit in layer.units} == {"millimeter"}
    place = geometry_of(layer)
    assert np.allclose(place.file.affine, nib.load(KIDNEY).affine)
    assert place.grid.known


def test_a_dicom_file_brings_its_modality_and_window(viewer):
    (layer,) = viewer.open(get_testdata_file("CT_small.dcm", download=False), plugin=PLUGIN)
    assert layer.data.shape == (128, 128)
    assert layer.metadata["medreasoner"].modality == "CT"
    assert layer.scale.tolist() == pytest.approx([0.661468, 0.661468])


@pytest.mark.parametrize("name", ["I110", "IM-0001-00000001", "1.2.840.113619.2.5", "1.2.7"])
def test_a_dicom_file_without_a_suffix_opens_by_itself(viewer, tmp_path, name):
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / name)
    (layer,) = viewer.open(tmp_path / name, plugin=None)  # as napari does for a dropped file
    assert layer.metadata["medreasoner"].modality == "CT"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "colour"])
def test_a_picture_opens_in_pixels(viewer, tmp_path, suffix, colours):
    stored = np.full((20, 30, *colours), 200, np.uint8)
    Image.fromarray(stored).save(tmp_path / f"x{suffix}")
    (layer,) = viewer.open(tmp_path / f"x{suffix}", plugin=PLUGIN)
    assert np.abs(layer.data.astype(int) - stored).max() <= 2
    assert layer.rgb == bool(colours)
    assert {str(unit) for unit in layer.units} == {"pixel"}


def test_a_refused_file_is_one_sentence(tmp_path):
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(KIDNEY.read_bytes()[:5000])
    with pytest.raises(Exception, match=r"broken\.nii\.gz .*damaged|get another copy"):
        get_reader(str(path))(str(path))
