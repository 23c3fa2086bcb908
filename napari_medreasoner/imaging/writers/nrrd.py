"""Masks and images out as NRRD, on the grid they came from.

Format: teem's "Definition of NRRD File Format"; one file, gzip inside, as 3D Slicer writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import nrrd  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.writers.atomic import replace_atomically
from napari_medreasoner.imaging.writers.file_grid import RGB, FileImage, check_same

__all__ = ["write_nrrd"]

_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_LEVEL: Final = 6


def write_nrrd(path: Path, image: FileImage, *, known: bool) -> None:
    """Write an image as NRRD in the space left-posterior-superior.

    Written beside the target, read back and compared in millimetres, and only then put in its
    place, so that a failure leaves the old file as it was.

    Parameters
    ----------
    path : Path
        Ends in ".nrrd".
    image : FileImage
        In file order.
    known : bool
        Whether the affine is the patient's; without, directions are written but no space.

    Raises
    ------
    ExportError
        When NRRD has no such element type, or writing fails.
    """
    colour = image.voxels.dtype == RGB
    data = np.stack([image.voxels[name] for name in "RGB"]) if colour else image.voxels
    if data.dtype.kind not in "iuf" or data.dtype == np.float16:
        raise ExportError(f"NRRD cannot hold elements of type {data.dtype}; convert them first.")
    with replace_atomically(path) as temporary:
        nrrd.write(
            str(temporary),
            data,
            _header(image.affine, colour=colour, known=known),
            compression_level=_LEVEL,
        )
        back, header = nrrd.read(str(temporary))
        check_same(image, _voxels(back, colour=colour), _affine(header))


def _header(affine: NDArray[np.float64], *, colour: bool, known: bool) -> dict[str, Any]:
    lps = _TO_LPS @ affine
    directions = lps[:3, :3].T
    header: dict[str, Any] = {"space": "left-posterior-superior"} if known else {}
    if not known:
        header["space dimension"] = 3
    if colour:
        # pynrrd writes a row of NaN as "none".
        directions = np.vstack([np.full(3, np.nan), directions])
        header["kinds"] = ["RGB-color", "domain", "domain", "domain"]
    else:
        header["kinds"] = ["domain", "domain", "domain"]
    return header | {
        "space directions": directions,
        "space origin": lps[:3, 3],
        "encoding": "gzip",
    }


def _voxels(data: NDArray[Any], *, colour: bool) -> NDArray[Any]:
    if not colour:
        return data
    return np.ascontiguousarray(np.moveaxis(data, 0, -1)).view(RGB)[..., 0]


def _affine(header: dict[str, Any]) -> NDArray[np.float64]:
    lps = np.eye(4)
    lps[:3, :3] = np.asarray(header["space directions"])[-3:].T
    lps[:3, 3] = header["space origin"]
    return _TO_LPS @ lps
