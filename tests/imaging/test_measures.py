from math import pi

import numpy as np
import pytest

from napari_medreasoner.core.geometry import Grid
from napari_medreasoner.imaging.measures import measure
from napari_medreasoner.imaging.volume import plain_grid


def grid(shape: tuple[int, int, int]) -> Grid:
    return Grid(shape, np.diag([-0.5, -0.8, 2.0, 1.0]))


def test_an_ellipsoid_has_the_size_of_an_ellipsoid() -> None:
    z, y, x = np.ogrid[:40, :100, :140]
    mask = ((z - 20) * 2 / 24) ** 2 + ((y - 50) * 0.8 / 30) ** 2 + ((x - 70) * 0.5 / 20) ** 2 <= 1
    found = measure(mask, grid(mask.shape))
    assert found.voxels == mask.sum()
    assert found.volume_ml == pytest.approx(4 / 3 * pi * 24 * 30 * 20 / 1000, rel=0.01)
    assert found.area_mm2 == pytest.approx(pi * 30 * 20, rel=0.01)
    assert found.diameter_mm == pytest.approx(60, abs=1)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (7, 1)])
def test_lines_and_single_pixels(rows: int, columns: int) -> None:
    mask = np.zeros((12, 12), dtype=bool)
    mask[2 : 2 + rows, 1 : 1 + columns] = True
    found = measure(mask, grid((1, 12, 12)))
    assert found.area_mm2 == pytest.approx(rows * columns * 0.4)
    assert found.diameter_mm == pytest.approx((rows - 1) * 0.8 + (columns - 1) * 0.5 + 0.65)
    assert found.volume_ml is None


def test_an_empty_mask_and_one_without_geometry() -> None:
    empty = measure(np.zeros((3, 4, 5), dtype=bool), grid((3, 4, 5)))
    assert (empty.voxels, empty.volume_ml, empty.area_mm2, empty.diameter_mm) == (0, 0, 0, 0)
    unknown = measure(np.ones((4, 5), dtype=bool), plain_grid((4, 5)))
    assert unknown.voxels == 20
    assert unknown.area_mm2 is None
    assert unknown.diameter_mm is None


def test_rows_and_columns_that_are_not_at_right_angles() -> None:
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (0, 2, 0), (0, 1.5, 3), (4, 0, 0)
    mask = np.zeros((2, 9, 9), dtype=bool)
    mask[0, 0, 0] = mask[0, 4, 5] = mask[0, 2, 2] = True
    found = measure(mask, Grid(mask.shape, affine))
    assert found.area_mm2 == pytest.approx(3 * 2 * 3)
    far = np.linalg.norm(5 * affine[:3, 0] + 4 * affine[:3, 1])
    assert found.diameter_mm == pytest.approx(far + (2 + np.hypot(1.5, 3)) / 2)
