"""Pictures that say how they are to be held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from napari_medreasoner.imaging.readers.raster import read_raster

# What the viewer does to the stored rows and columns (CIPA DC-008, Orientation).
UPRIGHT = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, *range(2, stored.ndim)),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored[:, ::-1], -1),
    8: lambda stored: np.rot90(stored, 1),
}


def saved(path: Path, stored: NDArray[np.generic], orientation: int) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    return path


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(
    tmp_path: Path, orientation: int, dtype: type[np.generic], kind: str
) -> None:
    stored = np.arange(35).reshape(5, 7).astype(dtype)
    found = read_raster(saved(tmp_path / f"a.{kind}", stored, orientation))
    assert np.array_equal(found.array.squeeze(), UPRIGHT[orientation](stored))
    (told,) = found.warnings
    assert "upright" in told


def test_a_photograph_held_sideways(tmp_path: Path) -> None:
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:8] = (255, 0, 0)
    found = read_raster(saved(tmp_path / "a.jpg", stored, 6)).array.squeeze()
    assert found.shape == (60, 40, 3)
    assert found[:, 34:, 0].min() > 200 > 60 > found[:, :28, 0].max()


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_others_stay_as_they_are(tmp_path: Path, orientation: int) -> None:
    stored = np.arange(35, dtype=np.uint8).reshape(5, 7)
    found = read_raster(saved(tmp_path / "a.png", stored, orientation))
    assert np.array_equal(found.array.squeeze(), stored)
    assert not found.warnings
