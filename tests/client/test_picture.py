from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.errors import ImageError
from napari_medreasoner.core.geometry import SlicePlane
from napari_medreasoner.core.protocol import content_hash


@pytest.mark.parametrize(
    ("values", "dtype", "wire"),
    [
        ([[0, 1]], "bool", "uint8"),
        ([[0, 255]], "uint8", "uint8"),
        ([[-128, 127]], "int8", "int16"),
        ([[-5, 5]], "int16", "int16"),
        ([[0, 65535]], "uint16", "uint16"),
        ([[-32768, 32767]], "int32", "int16"),
        ([[0, 65535]], "int64", "uint16"),
        ([[-1, 65535]], "int32", "float32"),
        ([[0, 2**40]], "uint64", "float32"),
        ([[0.5, nan]], "float16", "float32"),
        ([[0.5, inf]], "float64", "float32"),
        ([[-5, 5]], ">i2", "int16"),
        ([[0.5, 1.5]], ">f8", "float32"),
    ],
)
def test_element_types_of_the_wire(values, dtype, wire):
    array = np.array(values).astype(dtype)
    image = UploadImage(array)

    assert image.array.dtype == np.dtype(wire).newbyteorder("=")
    assert image.array.flags.c_contiguous
    assert image.header.dtype == wire
    np.testing.assert_array_equal(image.array, array)


@given(
    npst.arrays(
        npst.integer_dtypes(sizes=(8, 16)) | npst.unsigned_integer_dtypes(sizes=(8, 16)),
        npst.array_shapes(min_dims=2, max_dims=3, max_side=5),
    )
)
def test_small_whole_numbers_are_kept_exactly(array):
    np.testing.assert_array_equal(UploadImage(array.T).array, array.T)


def test_the_hash_depends_on_content_only():
    array = np.arange(12, dtype=np.int16).reshape(3, 4)
    fortran = np.asfortranarray(array)
    assert UploadImage(array).sha256 == UploadImage(fortran).sha256 == content_hash(array)
    assert UploadImage(array).sha256 != UploadImage(array.T).sha256


def test_a_number_beyond_float32_becomes_infinite_without_a_warning():
    assert np.isinf(UploadImage(np.array([[1e300, 1.0]])).array[0, 0])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), complex),
        np.zeros((4, 4), object),
        np.array([["a", "b"]]),
        np.zeros((4, 4), "datetime64[s]"),
        np.zeros((0, 4)),
        np.zeros((4, 0, 4)),
        np.float32(3),
        np.zeros(4),
        np.zeros((2, 2, 2, 2)),
        np.zeros((2, 2, 2, 3, 3)),
        np.full((4, 4), nan),
        np.full((4, 4, 4), inf),
        np.broadcast_to(np.uint8(0), (1, 65536)),
        [],
    ],
)
def test_what_no_engine_can_use_is_refused_in_one_sentence(array):
    with pytest.raises(ImageError, match=r"^The image .*\.$"):
        UploadImage(array)


@pytest.mark.parametrize(
    ("shape", "plane", "size"),
    [
        ((20, 30), None, (30, 20)),
        ((20, 30, 3), None, (30, 20)),
        ((4, 20, 30), SlicePlane(axis=0, index=3), (30, 20)),
        ((4, 20, 30), SlicePlane(axis=1, index=19), (30, 4)),
        ((4, 20, 30, 3), SlicePlane(axis=2, index=29), (20, 4)),
    ],
)
def test_a_picture_knows_its_size_and_its_name(shape, plane, size):
    picture = Picture(UploadImage(np.zeros(shape)), plane, window=(0, 1), spacing=(5, 1, 1))

    assert (picture.width, picture.height) == size
    assert picture.ref.sha256 == picture.image.sha256
    assert picture.ref.plane == plane
    assert picture.ref.window == (0, 1)


@pytest.mark.parametrize(
    ("shape", "plane"),
    [
        ((4, 20, 30), None),
        ((20, 30), SlicePlane(index=0)),
        ((20, 30, 3), SlicePlane(index=0)),
        ((4, 20, 30), SlicePlane(axis=0, index=4)),
    ],
)
def test_a_slice_that_does_not_fit_is_refused(shape, plane):
    with pytest.raises(ImageError):
        Picture(UploadImage(np.zeros(shape)), plane)


@pytest.mark.parametrize(
    "more", [{"window": (0, nan)}, {"window": (-inf, 0)}, {"spacing": (0, 1, 1)}]
)
def test_a_window_or_spacing_that_is_no_number_is_refused(more):
    with pytest.raises(ImageError, match=next(iter(more))):
        _ = Picture(UploadImage(np.zeros((4, 4))), **more).ref
