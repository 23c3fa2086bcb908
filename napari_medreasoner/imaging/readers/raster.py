"""PNG, JPEG and TIFF pictures, which carry no place in the patient."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.readers.limits import check_pixels
from napari_medreasoner.imaging.volume import Volume, plain_grid

__all__ = ["read_raster"]

_FORMATS: Final = ("PNG", "JPEG", "TIFF")


def _open(path: Path) -> Image.Image:
    """Open without Pillow's warning about large pictures; `check_pixels` has its own limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=_FORMATS)


def read_raster(path: Path) -> Volume:
    """Read a picture: grey as it is stored (8 or 16 bit), anything else as RGB.

    Raises
    ------
    ReadError
        When the file is damaged, of another format, or has more than
        `limits.MAX_PIXELS`.
    """
    try:
        with _open(path) as picture:
            check_pixels(path.name, *picture.size)
            if getattr(picture, "n_frames", 1) > 1:
                raise ReadError(f"{path.name} holds several pictures; save the one you mean.")
            grey = picture.mode in {"L", "I;16", "I;16B", "I", "F"}
            array = np.asarray(picture if grey else picture.convert("RGB"))
    except ReadError:
        raise
    except Exception as error:
        # Pillow's decoders raise SyntaxError, struct.error, EOFError and more on damaged files.
        raise ReadError(
            f"{path.name} cannot be read as a picture ({type(error).__name__}); the file is "
            "damaged, too large or of another kind."
        ) from error
    return Volume(array, plain_grid(array.shape[:2]), path.stem)
