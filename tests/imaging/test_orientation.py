import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes, io_orientation

from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.imaging.orientation import axis_letters, directions

NUMBER = st.floats(-300, 300)
TURNS = st.floats(-np.pi, np.pi) | st.sampled_from([0.0, np.pi / 4, -np.pi / 4, np.pi / 2])


def turned(angles: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[one, other], [one, other]] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def agree(affine: np.ndarray) -> None:
    truth = io_orientation(affine)
    if not np.isfinite(truth).all():
        with pytest.raises(ImageError):
            directions(affine)
        return
    assert directions(affine) == [(int(world), sense > 0) for world, sense in truth]
    assert axis_letters(affine) == "".join(aff2axcodes(affine))


@given(
    angles=st.tuples(TURNS, TURNS, TURNS),
    steps=st.tuples(*[st.floats(0.01, 20)] * 3),
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
)
def test_oblique_affines_run_as_nibabel_says(
    angles: tuple[float, float, float], steps: tuple[float, ...], order: list[int], signs: tuple
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (turned(angles) * steps * signs)[:, order]
    agree(affine)


@given(st.lists(NUMBER, min_size=9, max_size=9))
def test_any_matrix_runs_as_nibabel_says(numbers: list[float]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(numbers, (3, 3))
    agree(affine)
