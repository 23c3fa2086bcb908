"""What the writers of data sets share: an empty folder that pictures are put into."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Final

from medreasoner_trainer.data.pixels import suffix_of
from medreasoner_trainer.data.record import DataSet, Record
from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.writers.atomic import make_folder

__all__ = ["PictureFolder", "new_folder", "write_picture"]

_SPELLINGS: Final = {
    ".png": {".png"},
    ".jpg": {".jpg", ".jpeg"},
    ".tif": {".tif", ".tiff"},
}
_DIGITS: Final = 20


def new_folder(folder: Path) -> None:
    """Make a folder for a data set.

    Raises
    ------
    ExportError
        When it cannot be made or is not empty.
    """
    make_folder(folder)
    if any(folder.iterdir()):
        raise ExportError(f"{folder} is not empty; give a new folder.")


def write_picture(path: Path, content: bytes) -> None:
    """Write a picture's bytes, making its folder.

    Raises
    ------
    ExportError
        When it cannot be written.
    """
    make_folder(path.parent)
    try:
        # Plainly: the folder is new, and no data set before its list of records is written.
        path.write_bytes(content)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror}); free space.") from error


class PictureFolder:
    """A new folder of pictures, each written once.

    A picture keeps the relative path it had; one from a table gets a name made of its content.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.

    Raises
    ------
    ExportError
        When it cannot be made or is not empty.
    """

    def __init__(self, folder: Path) -> None:
        new_folder(folder)
        self._folder = folder
        self._names: dict[str, str] = {}

    def add_image(self, data: DataSet, record: Record) -> str:
        """Write the image of a record, bytes unchanged; return its path in the folder.

        Raises
        ------
        ReadError
            When the image cannot be read.
        ExportError
            When it cannot be written.
        """
        if record.image not in self._names:
            content = data.image_file(record)
            suffix = suffix_of(content, record.image)
            self._names[record.image] = self._write(record.image, "images", suffix, content)
        return self._names[record.image]

    def add_mask(self, name: str, content: bytes) -> str:
        """Write a mask that is a PNG; return its path in the folder; errors as `add_image`."""
        return self._write(name, "masks", ".png", content)

    def _write(self, name: str, below: str, suffix: str, content: bytes) -> str:
        if PurePosixPath(name).suffix.lower() not in _SPELLINGS[suffix]:
            name = f"{below}/{hashlib.sha256(content).hexdigest()[:_DIGITS]}{suffix}"
        write_picture(self._folder / name, content)
        return name
