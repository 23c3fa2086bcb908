"""Slice positions as text of few decimals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.dicom.file import read_series
from napari_medreasoner.imaging.readers.dicom.printing import even_stack
from napari_medreasoner.imaging.readers.dicom.stack import POSITION_MM, SHEAR
from tests.imaging.dicom_series import AXIAL, OBLIQUE, header, normal_of, save, stored_slice

CORNER = np.array((-20.5, 12.2, 7.0))


def printed(folder: Path, corners: Any, orientation: Any = AXIAL, form: str = "{:.1f}") -> Any:
    """A series whose positions are the text that a scanner would print."""
    files = []
    for number, corner in enumerate(corners):
        ds = header(corner, orientation)
        ds.ImagePositionPatient = [form.format(x) for x in corner]
        files.append(save(folder / f"{number}.dcm", ds, stored_slice(number)))
    return files


def upright(step: float, count: int, orientation: Any = AXIAL) -> np.ndarray:
    return CORNER + np.arange(count)[:, None] * step * normal_of(orientation)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE])
@pytest.mark.parametrize(("step", "count"), [(2.5, 8), (0.625, 40), (1.25, 3)])
def test_positions_rounded_to_a_tenth_make_an_even_volume(
    tmp_path: Path, step: float, count: int, orientation: Any
) -> None:
    corners = upright(step, count, orientation)
    files = printed(tmp_path, corners, orientation)
    volume = read_series(files, "head")
    # Steps of 2.5 mm straight up are printed as they are.
    rounded = np.abs(np.round(corners, 1) - corners).max() > POSITION_MM
    assert any("to 0.1 mm only" in note for note in volume.warnings) == rounded
    assert volume.array.shape[0] == count
    order = range(count) if volume.array[0, 0, 0] == stored_slice(0)[0, 0] else range(count)[::-1]
    for shown, number in enumerate(order):
        assert volume.array[shown, 0, 0] == stored_slice(number)[0, 0]
        place = (volume.grid.affine @ (0, 0, shown, 1))[:3] * (-1, -1, 1)
        assert np.abs(place - corners[number]).max() <= 0.1 + 1e-5


def test_trailing_zeros_are_not_coarse_printing(tmp_path: Path) -> None:
    files = printed(tmp_path, upright(0.625, 40), form="{:g}")
    assert not read_series(files, "head").warnings


REFUSED: dict[str, tuple[np.ndarray, str, str]] = {
    "whole millimetres": (upright(2.5, 9), "{:.0f}", "uneven"),
    "a slice missing": (np.delete(upright(0.625, 20), 7, 0), "{:.1f}", "uneven|missing"),
    "the second of three missing": (upright(0.5, 4)[[0, 1, 3]], "{:.1f}", "uneven"),
    "finer than the printing can show": (upright(0.325, 9), "{:.1f}", "uneven"),
    "jitter of two units": (upright(2.5, 9) + np.eye(9, 3, -4) * 0.2, "{:.1f}", "straight|uneven"),
    "spacing that grows": (
        CORNER + np.outer(2.5 * np.arange(9) + 0.02 * np.arange(9) ** 2, (0, 0, 1)),
        "{:.1f}",
        "uneven",
    ),
    "a tilt of one degree": (
        upright(2.5, 20) + np.outer(np.arange(20) * 2.5 * np.tan(np.deg2rad(1)), (0, 1, 0)),
        "{:.1f}",
        "leans|straight|uneven",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_printing_does_not_explain_is_refused(tmp_path: Path, case: str) -> None:
    corners, form, reason = REFUSED[case]
    files = printed(tmp_path, corners, form=form)
    with pytest.raises(ReadError, match=reason):
        read_series(files, "head")


stacks = st.tuples(
    st.floats(0.41, 6), st.integers(3, 30), st.floats(-1, 1), st.floats(-1, 1), st.floats(-200, 200)
)


def normals(a: float, b: float) -> np.ndarray:
    normal = np.array((a, b, 1.0))
    return np.asarray(normal / np.linalg.norm(normal))


@given(stacks)
def test_every_even_stack_is_found_behind_its_printing(stack: tuple[Any, ...]) -> None:
    step, count, a, b, start = stack
    normal = normals(a, b)
    corners = np.round(start + np.arange(count)[:, None] * step * normal, 1)
    found = even_stack(corners, (0.1, 0.1, 0.1), normal, POSITION_MM, SHEAR)
    # Rounding can bring the ends of a short, fine stack nearer than what is asked of it.
    if found is None:
        assert (corners[-1] - corners[0]) @ normal / (count - 1) < 0.4
        return
    ideal = found[0] + np.arange(count)[:, None] * found[1]
    assert np.abs(ideal - corners).max() <= 0.05 + 1e-5


@given(stacks, st.floats(0.5, 20), st.floats(0, 2 * np.pi))
def test_no_lean_beyond_the_printing_passes(
    stack: tuple[Any, ...], degrees: float, way: float
) -> None:
    step, count, _, _, start = stack
    lean = np.array((np.cos(way), np.sin(way), 0)) * np.tan(np.deg2rad(degrees))
    corners = np.round(start + np.arange(count)[:, None] * step * (lean + normals(0, 0)), 1)
    found = even_stack(corners, (0.1, 0.1, 0.1), normals(0, 0), POSITION_MM, SHEAR)
    drift = (count - 1) * step * np.abs(lean).max()
    if drift > 0.2 + SHEAR * (count - 1) * step:
        assert found is None


@given(stacks, st.integers(1, 28))
def test_no_gap_passes_for_printing(stack: tuple[Any, ...], missing: int) -> None:
    step, count, a, b, start = stack
    normal = normals(a, b)
    numbers = np.delete(np.arange(count + 1), 1 + missing % (count - 1))
    corners = np.round(start + numbers[:, None] * step * normal, 1)
    assert even_stack(corners, (0.1, 0.1, 0.1), normal, POSITION_MM, SHEAR) is None
