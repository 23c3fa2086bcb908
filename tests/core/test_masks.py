import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_medreasoner.core.errors import ImageError, ProtocolError
from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.masks import (
    PackedMask,
    box_of_mask,
    key_points_of_mask,
    largest_component,
)

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, max_side=20))
filled = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)).filter(np.any)


@given(filled)
def test_the_box_is_tight(mask: np.ndarray) -> None:
    box = box_of_mask(mask)
    assert mask[box.slices].sum() == mask.sum()
    inner = mask[box.slices]
    assert all(side.any() for side in (inner[0], inner[-1], inner[:, 0], inner[:, -1]))


@given(filled)
def test_key_points_are_deep_and_far_apart(mask: np.ndarray) -> None:
    p1, p2 = key_points_of_mask(mask)
    outside = np.argwhere(~mask)

    def depth(point: Point) -> float:
        if len(outside) == 0:
            return np.inf
        return float(np.hypot(*(outside - (point.y, point.x)).T).min())

    assert mask[p1.y, p1.x]
    assert mask[p2.y, p2.x]
    if len(outside):
        depths = [depth(Point(x=int(x), y=int(y))) for y, x in np.argwhere(mask)]
        assert depth(p1) == pytest.approx(max(depths))
        assert depth(p2) >= depth(p1) / 2 - 1e-9
        reach = (p2.x - p1.x) ** 2 + (p2.y - p1.y) ** 2
        for (y, x), value in zip(np.argwhere(mask), depths, strict=True):
            if value >= depth(p1) / 2:
                assert (x - p1.x) ** 2 + (y - p1.y) ** 2 <= reach


def test_key_points_of_a_bar() -> None:
    mask = np.zeros((9, 30), dtype=bool)
    mask[2:7, 3:28] = True
    p1, p2 = key_points_of_mask(mask)
    assert p1 == Point(x=5, y=4)
    assert p2.x == 26
    assert box_of_mask(mask) == Box.from_corners(3, 2, 28, 7)


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ImageError, match="empty"):
        box_of_mask(np.zeros((3, 3), dtype=bool))


def test_the_largest_component_is_kept() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = mask[4:7, 4:7] = True
    assert largest_component(mask).sum() == 9
    assert not largest_component(np.zeros((2, 2), dtype=bool)).any()


@given(masks)
def test_a_packed_mask_comes_back_as_it_was(mask: np.ndarray) -> None:
    back = PackedMask.model_validate_json(PackedMask.pack(mask).model_dump_json()).unpack()
    assert np.array_equal(back, mask)
    assert back.flags.writeable


@pytest.mark.parametrize(
    "data",
    [
        "no base64 !",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"\0" * 3)).decode(),
        base64.b64encode(zlib.compress(b"\0" * 10**7)).decode(),
    ],
)
def test_a_damaged_or_lying_mask_is_refused(data: str) -> None:
    with pytest.raises(ProtocolError, match="mask arrived"):
        PackedMask(shape=(64, 64), data=data).unpack()


def test_a_mask_that_claims_terabytes_is_refused_before_allocation() -> None:
    with pytest.raises(ProtocolError, match="larger"):
        PackedMask(shape=(10**5, 10**5, 10**5), data="").unpack()


@given(st.integers(0, 255))
def test_padding_bits_do_not_matter(byte: int) -> None:
    data = base64.b64encode(zlib.compress(bytes([byte]))).decode()
    expected = [[bool(byte & 128), bool(byte & 64), bool(byte & 32)]]
    assert PackedMask(shape=(1, 3), data=data).unpack().tolist() == expected
