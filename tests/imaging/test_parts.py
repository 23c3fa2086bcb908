"""Several images in one file or folder: listed, chosen, and the same in a child as here."""

import gzip
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging import (
    Part,
    Volume,
    list_parts,
    list_parts_sandboxed,
    read_image,
    read_sandboxed,
)
from napari_medreasoner.imaging.window import default_window, to_uint8
from tests.imaging.dicom_series import CORONAL_NEGATIVE, enhanced, enhanced_pixels, save, series

SHAPE = (5, 6, 7)
COUNT = 4
OBLIQUE = np.array(
    [[-1.4, -0.5, 0.1, -11], [0.5, 1.9, 0.2, 7.5], [0, 0.3, 3.4, 300.25], [0, 0, 0, 1]]
)


def same_volume(one: Volume, other: Volume) -> None:
    assert one.array.dtype == other.array.dtype
    assert np.array_equal(one.array, other.array)
    assert np.array_equal(one.grid.affine, other.grid.affine)
    for field in ("name", "modality", "window", "inverted", "warnings", "frames"):
        assert getattr(one, field) == getattr(other, field)


def same_parts(one: tuple[Part, ...], other: tuple[Part, ...]) -> None:
    assert len(one) == len(other) > 0
    for mine, theirs in zip(one, other, strict=True):
        for field in ("number", "description", "modality", "slices", "problem"):
            assert getattr(mine, field) == getattr(theirs, field)
        assert (mine.thumbnail is None) == (theirs.thumbnail is None)
        assert mine.thumbnail is None or np.array_equal(mine.thumbnail, theirs.thumbnail)


def film(path: Path, extra: tuple[int, ...] = (COUNT,), dtype: Any = np.int16) -> Path:
    """A NIfTI file of several volumes, each value only once in it."""
    array = np.arange(np.prod(SHAPE + extra)).reshape(SHAPE + extra).astype(dtype)
    image: Any = nib.Nifti1Image(array, OBLIQUE)
    if np.dtype(dtype) == np.int16:
        image.header.set_slope_inter(0.5, -3.0)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("extra", [(4,), (1, 4), (4, 1), (4, 1, 1, 1)])
def test_each_volume_of_a_film_is_what_nibabel_reads(
    tmp_path: Path, name: str, extra: tuple[int, ...]
) -> None:
    path = film(tmp_path / name, extra)
    whole = np.asanyarray(nib.load(path).dataobj).reshape(*SHAPE, COUNT)
    for part in range(1, COUNT + 1):
        volume = read_image(path, part=part)
        assert volume.source is not None
        assert np.array_equal(volume.source.restore(volume.array), whole[..., part - 1])
        assert volume.array.flags.c_contiguous
        assert volume.array.flags.writeable
    with pytest.raises(ReadError, match=r"^a\.nii(\.gz)? holds 4 volumes; choose one"):
        read_image(path)
    for wrong in (0, -1, COUNT + 1):
        with pytest.raises(ReadError, match="volumes 1 to 4"):
            read_image(path, part=wrong)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_colour_films_and_big_endian_ones(tmp_path: Path, name: str) -> None:
    rgb = np.zeros((*SHAPE, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    values = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3, 3), dtype=np.uint8)
    for place, colour in enumerate("RGB"):
        rgb[colour] = values[..., place]
    nib.save(nib.Nifti1Image(rgb, OBLIQUE), tmp_path / name)
    volume = read_image(tmp_path / name, part=2)
    assert volume.is_rgb
    assert volume.source is not None
    shown = [volume.source.restore(volume.array[..., place]) for place in range(3)]
    assert np.array_equal(np.stack(shown, axis=-1), values[..., 1, :])
    swapped: Any = nib.Nifti1Image(
        values[..., 0].astype(">i4"), OBLIQUE, nib.Nifti1Header(endianness=">")
    )
    nib.save(swapped, tmp_path / f"swapped-{name}")
    big = read_sandboxed(tmp_path / f"swapped-{name}", part=3)
    assert big.source is not None
    assert np.array_equal(big.source.restore(big.array), values[..., 2, 0])


def test_one_volume_of_a_long_film_is_all_that_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "long.nii"
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.eye(4)).header
    header.set_data_shape((128, 128, 64, 500))
    header["vox_offset"] = 352
    path.write_bytes(header.binaryblock + bytes(4))
    os.truncate(path, 352 + 2 * 128 * 128 * 64 * 500)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    status = Path("/proc/self/status")

    def kib(field: str) -> int:
        return int(status.read_text().partition(f"{field}:")[2].split()[0])

    before = kib("VmRSS")
    volume = read_image(path, part=499)
    assert kib("VmHWM") - before < 40 * 1024
    assert volume.array.shape == (64, 128, 128)


def test_a_damaged_compressed_film_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum
    path.write_bytes(content)
    for call in (lambda: read_image(path, part=1), lambda: list_parts(path)):
        with pytest.raises(ReadError, match=r"^a.nii.gz cannot be read"):
            call()
    path.write_bytes(gzip.compress(gzip.decompress(film(path).read_bytes()) + bytes(10**6)))
    with pytest.raises(ReadError, match="more voxels than it says"):
        read_image(path, part=1)


def test_a_film_lists_its_volumes(tmp_path: Path) -> None:
    path = film(tmp_path / "a.nii")
    parts = list_parts(path)
    assert [part.number for part in parts] == [1, 2, 3, 4]
    assert parts[2].description == "volume 3 of 4"
    assert {part.slices for part in parts} == {7}
    for part in parts:
        grid = read_image(path, part=part.number).grid
        assert part.thumbnail is not None
        # 6 x 5 pixels of 2 x 1.5 mm: as wide and as high as they are in millimetres.
        assert part.thumbnail.shape == (6, round(5 * grid.spacing[2] / grid.spacing[1]), 3)


def test_thumbnails_are_windowed_as_images_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    stored = rng.integers(-1000, 2000, (300, 200, 1)).astype(np.int16)
    nib.save(nib.Nifti1Image(stored, np.diag([-1, -1, 1, 1])), tmp_path / "a.nii")
    (part,) = list_parts(tmp_path / "a.nii")
    assert part.thumbnail is not None
    assert part.thumbnail.shape == (64, 96, 3)
    volume = read_image(tmp_path / "a.nii")
    picture = to_uint8(volume.array, default_window(volume))
    boxes = Image.fromarray(picture).resize((96, 64), Image.Resampling.BOX)
    assert np.array_equal(part.thumbnail[..., 0], np.asarray(boxes))


def test_many_volumes_have_no_more_than_two_hundred_thumbnails(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 300), np.uint8), np.eye(4)), tmp_path / "a.nii")
    parts = list_parts_sandboxed(tmp_path / "a.nii")
    assert [part.thumbnail is not None for part in parts] == [True] * 200 + [False] * 100
    many = np.zeros((1, 1, 1, 10_001), np.uint8)
    nib.save(nib.Nifti1Image(many, np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(ReadError, match="holds 10,001 images, more than are listed"):
        list_parts_sandboxed(tmp_path / "b.nii")
    assert read_sandboxed(tmp_path / "b.nii", part=10_001).array.shape == (1, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five series: good, with a gap, of frames, without places, and of two kinds of colour."""
    root = tmp_path / "scans"
    root.mkdir()
    series(root / "good", CORONAL_NEGATIVE, SeriesInstanceUID="1.1", SeriesDescription="Good one")
    series(root / "gap", offsets=(0, 2, 6, 8), SeriesInstanceUID="1.2")
    film_of_two = enhanced(StackID=("1", "2", "2"))
    film_of_two.SeriesInstanceUID = "1.3"
    save(root / "stacks.dcm", film_of_two, enhanced_pixels())
    for number, path in enumerate(series(root / "lost", SeriesInstanceUID="1.4")):
        ds = pydicom.dcmread(path)
        del ds.ImagePositionPatient
        ds.InstanceNumber = 4 - number
        ds.save_as(path)
    colours = ("MONOCHROME1", "MONOCHROME2", "MONOCHROME2", "MONOCHROME2")
    series(root / "mixed", SeriesInstanceUID="1.5", PhotometricInterpretation=colours)
    return root


def test_a_folder_lists_its_series_and_why_some_are_no_volume(folder: Path) -> None:
    parts = list_parts(folder)
    assert len(parts) == 5
    assert sum(part.slices for part in parts) == 4 * 4 + 3
    good = next(part for part in parts if part.description == "Good one")
    assert (good.problem, good.modality) == ("", "CT")
    for part in parts:
        assert part.thumbnail is not None
        if part.problem:
            with pytest.raises(ReadError) as refused:
                read_image(folder, part=part.number)
            assert str(refused.value) == part.problem
        else:
            assert read_image(folder, part=part.number).grid.shape[0] > 1
    assert [bool(part.problem) for part in parts].count(False) == 1
    with pytest.raises(ReadError, match="holds 5 series"):
        read_image(folder)
    same_parts(list_parts_sandboxed(folder), parts)


def test_parts_and_single_slices_are_the_same_in_a_child(folder: Path, tmp_path: Path) -> None:
    for part in list_parts(folder):
        slices = [read_image(folder, part.number, number + 1) for number in range(part.slices)]
        assert len({one.frames for one in slices}) == part.slices
        assert slices[1].name == "scans 2"
        same_volume(read_sandboxed(folder, part=part.number, single=2), slices[1])
        with pytest.raises(ReadError, match=f"s 1 to {part.slices}, no {part.slices + 1}"):
            read_image(folder, part.number, part.slices + 1)
        with pytest.raises(ReadError, match=f"s 1 to {part.slices}, no 0"):
            read_image(folder, part.number, 0)
        if not part.problem:
            whole = read_image(folder, part.number)
            same_volume(read_sandboxed(folder, part=part.number), whole)
            taken = {one.frames[0]: one for one in slices}
            assert set(taken) == set(whole.frames)
    path = film(tmp_path / "a.nii.gz")
    same_volume(read_sandboxed(path, part=3), read_image(path, part=3))
    same_parts(list_parts_sandboxed(path), list_parts(path))


def test_a_single_slice_needs_no_other_file(tmp_path: Path) -> None:
    files = series(tmp_path / "s")
    for path in (files[0], files[1], files[3]):
        os.truncate(path, path.stat().st_size - 8)  # pixels cut, header whole
    assert read_image(tmp_path / "s", single=3).array.shape == (6, 5)
    with pytest.raises(ReadError):
        read_image(tmp_path / "s", single=2)
    (part,) = list_parts(tmp_path / "s")
    assert part.thumbnail is not None


def test_one_image_is_one_part(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 300), 7, np.uint8)).save(tmp_path / "a.png")
    film(tmp_path / "b.nii", ())
    file = save(tmp_path / "c", enhanced(), enhanced_pixels())
    for name, slices in (("a.png", 1), ("b.nii", 7), ("c", 3)):
        path = tmp_path / name
        (part,) = list_parts_sandboxed(path)
        assert (part.number, part.slices, part.problem) == (1, slices, "")
        assert part.thumbnail is not None
        assert max(part.thumbnail.shape) <= 96
        same_volume(read_sandboxed(path, part=1), read_image(path))
        with pytest.raises(ReadError, match="no 2"):
            read_image(path, part=2)
    assert read_image(file, single=2).array.shape == (6, 5)
    with pytest.raises(ReadError, match="no slices that are opened one by one"):
        read_image(tmp_path / "b.nii", single=1)


def test_what_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.dcm").write_bytes(b"x")
    (tmp_path / "a.docx").write_bytes(b"x")
    for name, reason in {
        "empty": "holds no DICOM images",
        "a.dcm": "mark of a DICOM file",
        "a.docx": "of a kind that is not read",
        "none.nii": "There is no file",
    }.items():
        for lister in (list_parts, list_parts_sandboxed):
            with pytest.raises(ReadError, match=reason):
                lister(tmp_path / name)


def test_pixels_that_cannot_be_decoded_leave_a_part_without_a_picture(tmp_path: Path) -> None:
    for path in series(tmp_path / "s"):
        os.truncate(path, path.stat().st_size - 8)
    (part,) = list_parts(tmp_path / "s")
    assert (part.slices, part.thumbnail) == (4, None)
    nan = np.full(SHAPE, np.nan, np.float32)
    nib.save(nib.Nifti1Image(nan, np.eye(4)), tmp_path / "nan.nii")
    (part,) = list_parts(tmp_path / "nan.nii")
    assert part.thumbnail is None


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_film_is_listed_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = film(tmp_path / "mutant.nii")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        parts = list_parts(path)
    except ReadError as error:
        assert "mutant.nii" in str(error)  # noqa: PT017 - either outcome is right
    else:
        for part in parts[:3]:
            assert read_image(path, part.number).grid.shape[0] == part.slices
