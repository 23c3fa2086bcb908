import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes

from napari_medreasoner.core.errors import ExportError, ReadError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.imaging import Segment, Volume, read_image, write_segments
from napari_medreasoner.imaging.volume import plain_grid

SHAPE = (5, 6, 7)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), *[(1, -1)] * 3))


def affine_of(orientation: Any, angle: float = 0.0) -> np.ndarray:
    """Axis order and signs, unequal spacing, an offset, and a turn about one axis."""
    order, *signs = orientation
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for file_axis, (world, sign, step) in enumerate(
        zip(order, signs, (1.5, 2.0, 3.5), strict=True)
    ):
        matrix[world, file_axis] = sign * step
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    matrix[:3, :3] = turn @ matrix[:3, :3]
    matrix[:3, 3] = (-11.0, 7.5, 300.25)
    return matrix


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    image: Any = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return array


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_all_48_orientations_show_alike_and_go_back_exactly(
    tmp_path: Path, orientation: Any
) -> None:
    affine = affine_of(orientation, angle=0.3)
    array = save(
        tmp_path / "in.nii.gz", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), affine
    )
    volume = read_image(tmp_path / "in.nii.gz")
    assert aff2axcodes(volume.grid.affine) == ("L", "P", "S")
    # Each displayed voxel lies where the file says the voxel of that value lies.
    for value in (0, 17, 104, 209):
        z, y, x = np.argwhere(volume.array == value)[0]
        place = volume.grid.to_patient(SlicePlane(axis=0, index=int(z)), x=int(x), y=int(y))
        truth = affine @ (*np.argwhere(array == value)[0], 1)
        assert np.allclose(place, truth[:3], atol=1e-3)
    write_segments(tmp_path / "mask.nii.gz", [Segment(volume.array % 7 == 3)], volume)
    back: Any = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asanyarray(back.dataobj), array % 7 == 3)
    assert np.abs(back.affine - affine).max() < 1e-3
    assert np.abs(back.get_sform() - back.get_qform()).max() < 1e-3
    assert back.header.get_data_dtype() == np.uint8


def test_the_sform_wins_over_the_qform(tmp_path: Path) -> None:
    image: Any = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4))
    image.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    image.set_sform(np.diag([3.0, 3, 3, 1]), 2)
    nib.save(image, tmp_path / "both.nii")
    assert read_image(tmp_path / "both.nii").grid.spacing == pytest.approx((3, 3, 3))
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "q.nii")
    volume = read_image(tmp_path / "q.nii")
    assert volume.grid.spacing == pytest.approx((2, 2, 2))
    assert volume.grid.known


def test_two_forms_that_differ_are_told(tmp_path: Path) -> None:
    image: Any = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4))
    image.set_sform(np.eye(4), 1)
    moved = np.eye(4)
    moved[0, 3] = 10
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "two.nii")
    (warning,) = read_image(tmp_path / "two.nii").warnings
    assert "differ by 10.0 mm" in warning
    image.set_qform(np.eye(4), 1)
    nib.save(image, tmp_path / "one.nii")
    assert read_image(tmp_path / "one.nii").warnings == ()


def test_skewed_axes_are_told_and_go_back_exactly(tmp_path: Path) -> None:
    affine = affine_of(((0, 1, 2), 1, 1, 1))
    affine[0, 1] = 2.0
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    save(tmp_path / "in.nii", array, affine)
    volume = read_image(tmp_path / "in.nii")
    (warning,) = volume.warnings
    assert "meet at 45.0 degrees" in warning
    write_segments(tmp_path / "out.nii", [Segment(volume.array > 50)], volume)
    back: Any = nib.load(tmp_path / "out.nii")
    assert np.array_equal(np.asanyarray(back.dataobj), array > 50)
    assert np.allclose(back.affine, affine, atol=1e-6)
    straight = affine_of(((0, 1, 2), 1, 1, 1), angle=0.3)
    save(tmp_path / "straight.nii", array, straight)
    assert not read_image(tmp_path / "straight.nii").warnings


def test_without_either_form_the_geometry_is_marked_as_assumed(tmp_path: Path) -> None:
    image: Any = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "none.nii")
    volume = read_image(tmp_path / "none.nii")
    assert not volume.grid.known
    assert "does not say where" in volume.warnings[0]


def test_metres_become_millimetres(tmp_path: Path) -> None:
    image: Any = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([0.001, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "metre.nii")
    volume = read_image(tmp_path / "metre.nii")
    assert volume.grid.spacing == pytest.approx((3, 2, 1))
    write_segments(tmp_path / "mask.nii", [Segment(volume.array == 0)], volume)
    back: Any = nib.load(tmp_path / "mask.nii")
    assert np.allclose(np.diag(back.affine)[:3], (1, 2, 3))


def test_rescaled_colour_and_single_slice_files(tmp_path: Path) -> None:
    scaled: Any = nib.Nifti1Image(np.ones(SHAPE, np.int16), np.eye(4))
    scaled.header.set_slope_inter(2.0, -1024.0)
    nib.save(scaled, tmp_path / "scaled.nii")
    assert np.unique(read_image(tmp_path / "scaled.nii").array).tolist() == [2 * 1 - 1024]
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 200
    save(tmp_path / "rgb.nii", rgb, np.eye(4))
    assert read_image(tmp_path / "rgb.nii").array.shape == (7, 6, 5, 3)
    save(tmp_path / "flat.nii", np.zeros((5, 6, 1), np.uint8), np.eye(4))
    flat = read_image(tmp_path / "flat.nii")
    assert flat.array.shape == (6, 5)
    assert not flat.is_volume
    write_segments(tmp_path / "mask.nii", [Segment(flat.array == 0)], flat)
    assert nib.load(tmp_path / "mask.nii").shape == (5, 6, 1)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.nii.gz", None, "cannot be read"),
        ("text.nii", b"this is not an image", "cannot be read"),
        ("empty.nii.gz", b"", "cannot be read"),
        ("notes.docx", b"x", "kind that is not read"),
        ("broken.png", b"\x89PNG\r\n\x1a\n broken", "cannot be read"),
        ("empty.jpg", b"", "cannot be read"),
    ],
)
def test_an_unreadable_file_is_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = tmp_path / name
    if content is None:
        save(path, np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.int16), np.eye(4))
        content = path.read_bytes()[:-200]
    path.write_bytes(content)
    with pytest.raises(ReadError, match=reason) as caught:
        read_image(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_4d_and_singular_geometry(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no file"):
        read_image(tmp_path / "none.nii.gz")
    save(tmp_path / "time.nii", np.zeros((*SHAPE, 4), np.int16), np.eye(4))
    with pytest.raises(ReadError, match="holds 4 volumes; choose one by its number, from 1"):
        read_image(tmp_path / "time.nii")
    save(tmp_path / "good.nii", np.zeros(SHAPE, np.int16), np.eye(4))
    content = bytearray((tmp_path / "good.nii").read_bytes())
    content[296:312] = bytes(16)  # srow_y of the NIfTI-1 header
    (tmp_path / "singular.nii").write_bytes(content)
    with pytest.raises(ReadError, match="geometry"):
        read_image(tmp_path / "singular.nii")


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "mutant.nii"
    save(path, np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), np.eye(4))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        volume = read_image(path)
    except ReadError as error:
        assert "mutant.nii" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert np.isfinite(volume.grid.affine).all()


def test_a_mask_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    volume = Volume(np.zeros((4, 5), np.uint8), plain_grid((4, 5)), "x")
    with pytest.raises(ExportError, match="shape"):
        write_segments(tmp_path / "mask.nii.gz", [Segment(np.ones((5, 4), bool))], volume)
    with pytest.raises(ExportError, match="must end in"):
        write_segments(tmp_path / "mask.png", [Segment(np.ones((4, 5), bool))], volume)
    assert not list(tmp_path.iterdir())
