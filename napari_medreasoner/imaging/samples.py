"""The sample images that ship: real, small, redistributable, each with a ready question."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from napari_medreasoner.imaging.readers.reader import read_image
from napari_medreasoner.imaging.volume import Volume

__all__ = ["SampleCase", "sample_cases", "sample_folder"]


class SampleCase(BaseModel):
    """One image, a question about it, and the mask to compare with.

    Attributes
    ----------
    id : str
        Stable name.
    title : str
        As shown in napari's Open Sample menu.
    image, mask : str
        Files in the sample folder, on one grid.
    modality, question : str
        What is asked, and of what kind of image.
    slice_index : int or None
        Axial slice of the displayed volume on which to ask; None for a 2D image.
    target, source, licence, mask_origin : str
        What the mask shows, where it comes from, its SPDX licence and who drew it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    image: str
    mask: str
    modality: str
    question: str
    slice_index: int | None
    target: str
    source: str
    licence: str
    mask_origin: str

    def load(self) -> Volume:
        """Read the image, with its title as name and its modality."""
        read = read_image(sample_folder() / self.image)
        return replace(read, name=self.title, modality=self.modality)

    def load_mask(self) -> Volume:
        """Read the mask (non-zero is the target)."""
        return read_image(sample_folder() / self.mask)


def sample_folder() -> Path:
    """Folder of the samples: inside an installed package, beside it in a checkout."""
    package = Path(str(files("napari_medreasoner")))
    installed = package / "sample_data"
    return installed if installed.is_dir() else package.parent / "sample_data"


def sample_cases() -> tuple[SampleCase, ...]:
    """All cases, in the order of `cases.json`."""
    text = (sample_folder() / "cases.json").read_text(encoding="utf-8")
    return tuple(TypeAdapter(dict[str, list[SampleCase]]).validate_json(text)["cases"])
