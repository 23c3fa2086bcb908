"""What is known of a model before it is loaded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Answers", "Coordinates", "ModelCard", "ModelFile"]

Coordinates = Literal["resized pixels", "pixels", "norm1000", "norm1", "norm1000 yx", "none"]
"""How a reasoner writes places: pixels of the picture after its processor resized it, pixels of
the picture as given, thousandths or fractions of its sides (x first, or y first); "none" for a
segmenter, which is given pixels of the picture."""

Answers = Literal["box and points", "box", "points", "mask"]
"""What a model was trained to give; halves that are missing are derived, and the trace says so."""


class ModelFile(BaseModel):
    """A file of a model: path below its folder, SHA-256 and bytes; "" and 0 when not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(min_length=1, max_length=500)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    size: Annotated[int, Field(ge=0)] = 0


class ModelCard(BaseModel):
    """One model of the catalogue, or a folder of the user's own.

    Attributes
    ----------
    name : str
        As in `--crm NAME`.
    title : str
        As its authors write it.
    role : str
        "crm" (reasoner) or "asm" (segmenter).
    family : str
        Which loader reads it; see `napari_medreasoner.engines.registry`.
    repository : str
        On the Hugging Face hub, or what an API calls the model; empty for a user's folder.
    revision : str
        Branch, tag or commit; `pull` pins the commit it found.
    files : tuple of ModelFile
        What to fetch; empty takes weights, configuration and tokenizer as the hub lists them.
    licence : str
        SPDX expression, or the licence's own name.
    description : str
        One sentence: what it is and how far to trust it.
    coordinates : str
        See `Coordinates`.
    answers : str
        See `Answers`.
    input_limits : str
        What it can be shown.
    vram_gib : float
        GPU memory that inference takes, in GiB; weights in 16 bits unless the text says else.
    remote_code : bool
        The repository needs code of its own, which is never run; the loader says what to use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    title: str
    role: Literal["crm", "asm"]
    family: str
    repository: str = ""
    revision: str = "main"
    files: tuple[ModelFile, ...] = ()
    licence: str = "unknown"
    description: str = ""
    coordinates: Coordinates = "none"
    answers: Answers = "box and points"
    input_limits: str = ""
    vram_gib: Annotated[float, Field(ge=0)] = 0.0
    remote_code: bool = False
