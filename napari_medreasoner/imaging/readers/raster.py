"""PNG, JPEG and TIFF pictures, which carry no place in the patient."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import ExifTags, Image, ImageOps

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.limits import check_pixels
from napari_medreasoner.imaging.volume import Volume, plain_grid

__all__ = ["read_raster"]

_FORMATS: Final = ("PNG", "JPEG", "TIFF")
_AS_STORED: Final = 1
"""EXIF orientation of a picture whose first row is at the top (CIPA DC-008)."""


def _open(file: BinaryIO) -> Image.Image:
    """Open without Pillow's warning about large pictures; `check_pixels` has its own limit.

    It is given no path: what it maps into memory, it maps with the sides of a turned TIFF swapped.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=_FORMATS)


def _orientation(picture: Image.Image) -> int:
    found = picture.getexif().get(ExifTags.Base.Orientation, _AS_STORED)
    return int(found) if found in range(1, 9) else _AS_STORED


def read_raster(path: Path) -> Volume:
    """Read a picture: grey as it is stored (8 or 16 bit), anything else as RGB.

    Photographs are turned upright, as their EXIF orientation says and viewers do; masks are
    then upright as well, which a warning says.

    Raises
    ------
    ReadError
        When the file is damaged, of another format, or has more than
        `limits.MAX_PIXELS`.
    """
    try:
        with path.open("rb") as file, _open(file) as picture:
            check_pixels(path.name, *picture.size)
            if getattr(picture, "n_frames", 1) > 1:
                raise ReadError(f"{path.name} holds several pictures; save the one you mean.")
            turned = _orientation(picture) != _AS_STORED
            upright = ImageOps.exif_transpose(picture)
            grey = picture.mode in {"L", "I;16", "I;16B", "I", "F"}
            array = np.asarray(upright if grey else upright.convert("RGB"))
    except ReadError:
        raise
    except Exception as error:
        # Pillow's decoders raise SyntaxError, struct.error, EOFError and more on damaged files.
        raise ReadError(
            f"{path.name} cannot be read as a picture ({type(error).__name__}); the file is "
            "damaged, too large or of another kind."
        ) from error
    told = (
        f"{path.name} is shown upright, as its EXIF orientation says; masks lie the same way, "
        "other than in the stored rows and columns."
    )
    grid = plain_grid(array.shape[:2])
    return Volume(array, grid, path.stem, warnings=(told,) if turned else ())
