import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.imaging.readers.itk import read_itk

SimpleITK: Any = pytest.importorskip("SimpleITK")

SHAPE = (5, 6, 7)  # k, j, i
DIRECTIONS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
ANGLE = 0.3
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])


def image_of(direction: np.ndarray, array: np.ndarray | None = None) -> Any:
    """Every voxel has its own value; unequal sizes, spacing and an offset."""
    if array is None:
        array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = SimpleITK.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing((1.5, 2.0, 3.5))
    image.SetOrigin((-11.0, 7.5, 300.25))
    image.SetDirection(direction.ravel().tolist())
    return image


def write(path: Path, image: Any, *, packed: bool = False) -> Path:
    SimpleITK.WriteImage(image, str(path), useCompression=packed)
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("turn", [np.eye(3), TURN], ids=["straight", "oblique"])
def test_every_voxel_lies_where_simpleitk_puts_it_in_all_48_orientations(
    tmp_path: Path, suffix: str, turn: np.ndarray
) -> None:
    for number, direction in enumerate(DIRECTIONS):
        image = image_of(turn @ direction)
        path = write(tmp_path / f"{number}{suffix}", image, packed=bool(number % 2))
        volume = read_itk(path)
        assert volume.grid.known
        assert not volume.warnings
        stored = SimpleITK.GetArrayFromImage(image)
        for value in (0, 6, 17, 104, 209):
            z, y, x = map(int, np.argwhere(volume.array == value)[0])
            place = volume.grid.to_patient(SlicePlane(axis=0, index=z), x=x, y=y)
            index = [int(number) for number in np.argwhere(stored == value)[0][::-1]]
            left, posterior, superior = image.TransformIndexToPhysicalPoint(index)
            assert np.allclose(place, (-left, -posterior, superior), atol=1e-3)
        assert volume.source is not None
        assert np.array_equal(volume.source.restore(volume.array).transpose(2, 1, 0), stored)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "f8"])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_voxel_types_are_kept(tmp_path: Path, suffix: str, dtype: str) -> None:
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)
    volume = read_itk(write(tmp_path / f"a{suffix}", image_of(np.eye(3), array)))
    assert volume.array.dtype == np.dtype(dtype)
    assert np.array_equal(volume.array, array)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_colour_is_rgb_of_eight_bits(tmp_path: Path, suffix: str) -> None:
    array = np.arange(np.prod((*SHAPE, 3)), dtype=np.uint16).reshape(*SHAPE, 3)
    eight = (array % 256).astype(np.uint8)
    volume = read_itk(write(tmp_path / f"a{suffix}", image_of(np.eye(3), eight)))
    assert np.array_equal(volume.array, eight)
    with pytest.raises(ReadError, match="3 values of 16 bits"):
        read_itk(write(tmp_path / f"b{suffix}", image_of(np.eye(3), array)))
    with pytest.raises(ReadError, match="2 values of 8 bits"):
        read_itk(write(tmp_path / f"c{suffix}", image_of(np.eye(3), eight[..., :2])))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_series_of_volumes_is_refused_and_one_slice_is_an_image(
    tmp_path: Path, suffix: str
) -> None:
    series = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 5), np.uint8), isVector=False)
    with pytest.raises(ReadError, match=f"a{suffix}.*volume"):
        read_itk(write(tmp_path / f"a{suffix}", series))
    array = np.arange(20, dtype=np.uint8).reshape(4, 5)
    picture = read_itk(write(tmp_path / f"b{suffix}", SimpleITK.GetImageFromArray(array)))
    assert np.array_equal(picture.array, array)


def test_mhd_is_read_only_with_its_voxels_inside(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mha", image_of(TURN))
    local = whole.rename(tmp_path / "a.mhd")
    volume = read_itk(local)
    assert np.array_equal(np.sort(volume.array, axis=None), np.arange(np.prod(SHAPE)))
    assert volume.grid.known
    with pytest.raises(ReadError, match=r"b\.mhd is only a header .*\.mha"):
        read_itk(write(tmp_path / "b.mhd", image_of(TURN)))


def test_nrrd_without_a_patient_space_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    head = b"NRRD0004\n# note\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nkey:=x: y\n"
    path.write_bytes(head + b"spacings: 1 2 3\n\n" + bytes(range(24)))
    volume = read_itk(path)
    assert not volume.grid.known
    assert volume.grid.spacing == (3, 2, 1)
    assert len(volume.warnings) == 1


def test_without_simpleitk_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mha", image_of(np.eye(3)))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ReadError, match="pip install SimpleITK"):
        read_itk(path)
