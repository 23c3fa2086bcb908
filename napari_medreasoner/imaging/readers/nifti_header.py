"""The header of a NIfTI file: found, and its claims checked before a voxel is read."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.limits import check_claim, unreadable

__all__ = ["checked_header"]

_LAYOUTS: Final[tuple[tuple[Any, bytes], ...]] = ((Nifti1Header, b"n+1"), (Nifti2Header, b"n+2"))
_MAX_OFFSET: Final = 64 * 2**20
_BITS: Final = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32}
_BITS_WIDE: Final = {1024: 64, 1280: 64}
"""Bits per voxel of the NIfTI data types that can be shown: integers, floats and RGB."""


def checked_header(path: Path) -> tuple[Any, int]:
    """Read the header of a .nii or .nii.gz file: sizes, spacing and where its data lie.

    At most 540 bytes are decompressed, so that this takes no time on a bomb.

    Returns
    -------
    header : nibabel.Nifti1Header or nibabel.Nifti2Header
        In the file's byte order; not yet looked at by nibabel's own `check_fix`.
    size : int
        Bytes of header and voxels together, decompressed.

    Raises
    ------
    ReadError
        When the header cannot be right, or the data would lie in another file.
    """
    packed = path.name.lower().endswith(".gz")
    header = _header(path, packed=packed)
    dims = [int(size) for size in header["dim"]]
    kind, offset = int(header["datatype"]), float(header["vox_offset"])
    bits = (_BITS | _BITS_WIDE).get(kind)
    if not 1 <= dims[0] <= 7:
        raise ReadError(f"{path.name} claims {dims[0]} dimensions; the file is damaged.")
    if bits is None:
        raise ReadError(
            f"{path.name} has voxels of NIfTI type {kind}, which cannot be shown; convert them to "
            "float32 first."
        )
    if not 0 <= offset <= _MAX_OFFSET:
        raise ReadError(f"{path.name} puts its voxels at byte {offset:g}; the file is damaged.")
    spacing = np.asarray(header["pixdim"][1 : 1 + min(dims[0], 3)], dtype=np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ReadError(
            f"{path.name} has the voxel spacing {spacing.tolist()}, which cannot be; repair its "
            "header."
        )
    size = path.stat().st_size
    present = size if packed else max(size - int(offset), 0)
    shape = dims[1 : 1 + dims[0]]
    check_claim(path.name, shape, bits, present, packed=packed)
    return header, int(offset) + math.prod(shape) * bits // 8


def _header(path: Path, *, packed: bool) -> Any:
    """A NIfTI-1 or NIfTI-2 header in either byte order."""
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            block = file.read(Nifti2Header.sizeof_hdr)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    for layout, magic in _LAYOUTS:
        size = layout.sizeof_hdr
        for order in "<>" if len(block) >= size else "":
            header = layout(block[:size], order, check=False)
            if header["sizeof_hdr"] == size and bytes(header["magic"])[:3] == magic:
                return header
    raise ReadError(
        f"{path.name} cannot be read as a NIfTI file that holds its own voxels; the file is "
        "damaged or of another kind."
    )
