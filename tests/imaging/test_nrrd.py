"""NRRD and NIfTI out: voxels and their centres as an independent reader sees them."""

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging import Segment, Volume, read_image, write_image, write_segments
from napari_medreasoner.imaging.orientation import displayed
from napari_medreasoner.imaging.volume import plain_grid

SHAPE = (5, 6, 7)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), *[(1, -1)] * 3))
SUFFIXES = (".nrrd", ".nii", ".nii.gz")
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(orientation: Any) -> np.ndarray:
    """Axis order and signs, unequal spacing, an offset, and a turn about an odd axis."""
    order, *signs = orientation
    matrix = np.zeros((3, 3))
    for file_axis, (world, sign, step) in enumerate(
        zip(order, signs, (1.5, 2.0, 3.5), strict=True)
    ):
        matrix[world, file_axis] = sign * step
    turn = Rotation.from_rotvec((0.1, -0.2, 0.3)).as_matrix()
    return affine(turn @ matrix, (-11.0, 7.5, 300.25))


def affine(matrix: np.ndarray, offset: Any) -> np.ndarray:
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = matrix, offset
    return whole


def numbered() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def seen_by_others(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (i, j, k) and affine to RAS mm, by nibabel or SimpleITK: not what wrote them."""
    if path.suffix == ".nrrd":
        image = SimpleITK.ReadImage(str(path))
        direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        voxels = SimpleITK.GetArrayFromImage(image)
        voxels = voxels.transpose(2, 1, 0, *range(3, voxels.ndim))
        return voxels, TO_LPS @ affine(direction, image.GetOrigin())
    nifti: Any = nib.load(path)
    qform, code = nifti.get_qform(coded=True)
    assert code == 0 or farthest(qform, nifti.get_sform()) < 1e-3
    return np.asanyarray(nifti.dataobj), nifti.affine


def farthest(one: np.ndarray, other: np.ndarray) -> float:
    """Largest distance between the centres of the same voxels on two grids."""
    every = np.c_[np.argwhere(np.ones(SHAPE)), np.ones(np.prod(SHAPE))]
    return float(np.linalg.norm(every @ (one - other).T, axis=1).max())


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_all_48_orientations_come_back_in_their_place(tmp_path: Path, orientation: Any) -> None:
    array, matrix = numbered(), affine_of(orientation)
    nifti: Any = nib.Nifti1Image(array, matrix)
    nifti.header.set_xyzt_units("mm")
    nib.save(nifti, tmp_path / "in.nii")
    volume = read_image(tmp_path / "in.nii")
    for suffix in SUFFIXES:
        write_segments(tmp_path / f"m{suffix}", [Segment(volume.array % 7 == 3, 5)], volume)
        voxels, back = seen_by_others(tmp_path / f"m{suffix}")
        assert np.array_equal(voxels, 5 * (array % 7 == 3))
        assert farthest(back, matrix) <= 1e-3
        write_image(tmp_path / f"i{suffix}", volume)
        voxels, back = seen_by_others(tmp_path / f"i{suffix}")
        assert np.array_equal(voxels, array)
        assert voxels.dtype == array.dtype
        assert farthest(back, matrix) <= 1e-3


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """A turn, an anisotropic scale, flips, and a place up to 2 m away."""
    turn = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True)
    scale = [draw(st.floats(0.05, 20)) * draw(st.sampled_from((1, -1))) for _ in range(3)]
    offset = [draw(st.floats(-2000, 2000)) for _ in range(3)]
    return affine(turn.as_matrix() * scale, offset)


@given(matrix=affines())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_straight_grid_comes_back_in_its_place(tmp_path: Path, matrix: np.ndarray) -> None:
    array = numbered()
    volume = displayed(array, matrix, code=1, name="x")
    for suffix in (".nrrd", ".nii"):
        write_segments(tmp_path / f"m{suffix}", [Segment(volume.array % 7 == 3)], volume)
        voxels, back = seen_by_others(tmp_path / f"m{suffix}")
        assert np.array_equal(voxels, array % 7 == 3)
        assert farthest(back, matrix) <= 1e-3


@pytest.mark.parametrize(
    "kind", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
def test_intensities_keep_their_type(tmp_path: Path, kind: str) -> None:
    low, high = (-1e30, np.nan) if kind[0] == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    array = np.zeros((2, 3, 4), kind)
    array[0, 0, 0], array[1, 2, 3] = low, high
    for suffix in (".nrrd", ".nii.gz"):
        write_image(tmp_path / f"x{suffix}", Volume(array, plain_grid(array.shape), "x"))
        voxels, _ = seen_by_others(tmp_path / f"x{suffix}")
        assert voxels.dtype == array.dtype
        assert np.array_equal(voxels.transpose(2, 1, 0), array, equal_nan=kind[0] == "f")


def test_colour_and_what_is_not_known_survive(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 6, 5, 3)).astype(np.uint8)
    write_image(tmp_path / "c.nrrd", Volume(colours, plain_grid((4, 6, 5)), "x"))
    voxels, _ = seen_by_others(tmp_path / "c.nrrd")
    assert np.array_equal(voxels.transpose(2, 1, 0, 3), colours)
    back = read_image(tmp_path / "c.nrrd")
    assert not back.grid.known
    assert np.array_equal(back.array, colours)
    placed = displayed(colours.transpose(2, 1, 0, 3), np.diag([2.0, 3, 4, 1]), code=1, name="x")
    write_image(tmp_path / "p.nrrd", placed)
    back = read_image(tmp_path / "p.nrrd")
    assert back.grid.known
    assert np.array_equal(back.array, placed.array)
    assert np.abs(back.grid.affine - placed.grid.affine).max() < 1e-9


def test_a_type_that_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    half = Volume(np.zeros((2, 3, 4), np.float16), plain_grid((2, 3, 4)), "x")
    for name in ("x.nrrd", "x.nii"):
        with pytest.raises(ExportError, match="float16"):
            write_image(tmp_path / name, half)
    assert list(tmp_path.iterdir()) == []
