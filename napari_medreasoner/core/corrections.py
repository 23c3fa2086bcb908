"""What a user corrected, written down so that it can become training data.

A log is a folder: `corrections.jsonl` with one `Correction` a line, and the pictures it names. It
is written only where the user asks for it, holds no name and no date of a patient, and leaves the
machine only when the user takes it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.masks import PackedMask

__all__ = ["CORRECTIONS", "Correction"]

CORRECTIONS: Final = "corrections.jsonl"
"""Name of the file of lines."""

_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
_Path = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Correction(BaseModel):
    """One finding as the user left it: a line of a correction log.

    Attributes
    ----------
    version : int
        Of this form.
    id : str
        Unique in its log.
    image : str
        Path of the picture in the log's folder: PNG, as the model was shown it.
    group : str
        The same for pictures of one study, and without meaning outside the log, such as a salted
        hash; empty when each picture stands alone.
    modality, category : str
        As in "CT" and "left kidney"; empty where the user did not say.
    question : str
        As the user asked it.
    trace : str
        The reasoning that the model gave.
    algorithm : str
        Names and versions of the models.
    proposed : Prompts
        What the model gave, in pixels of the picture; empty when it gave nothing.
    final : Prompts
        What the user left.
    mask : PackedMask
        What the user left, of the picture's shape (row, column).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    id: _Id
    image: _Path
    group: str = ""
    modality: str = ""
    category: str = ""
    question: str = ""
    trace: str = ""
    algorithm: str = ""
    proposed: Prompts = Prompts()
    final: Prompts
    mask: PackedMask
