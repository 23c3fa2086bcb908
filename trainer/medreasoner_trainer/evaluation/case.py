"""One scored answer: a line of `cases.jsonl`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from medreasoner_trainer.evaluation.words import PromptMode
from napari_medreasoner.core.masks import PackedMask

__all__ = ["METRICS", "REASONER_FAILED", "SEGMENTER_FAILED", "Case"]

METRICS: Final = ("iou", "pdice", "pdice_released", "dice_points", "dice_box", "dice_both")
"""The fields of a case that are scores."""

REASONER_FAILED: Final = "reasoner_failed"
SEGMENTER_FAILED: Final = "segmenter_failed"

_Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]  # rounding may end a hair above 1


class Case(BaseModel):
    """What a reasoner and a segmenter made of one record.

    A half of the answer (box or points) that cannot be used scores 0 where it is needed and
    nowhere else; a text with no usable half scores 0 throughout.

    Attributes
    ----------
    id, group, modality, supercategory, category : str
        Of the record.
    question : str
        As it was asked.
    text : str
        What the reasoner wrote, its first 20,000 characters. Untrusted.
    parsed : bool
        Whether a box or a pair of points could be read in it.
    refused : bool
        Whether the model itself declined to answer, in the answer format or in plain words,
        which is no parse failure.
    fault : str
        Empty, a member of `napari_medreasoner.core.grounding.AnswerFault`, `REASONER_FAILED`
        or `SEGMENTER_FAILED`.
    reason : str
        One sentence on the fault.
    bbox : tuple of int or None
        x1, y1, x2, y2 in pixels of the image, max-exclusive, clipped to it.
    points : pair of (int, int) or None
        (x, y) of P1 and P2, clipped to the image.
    iou : float
        Of the boxes (paper, Eq. 1).
    pdice, pdice_released : float
        Dice of the circles over the points (paper, Eq. 5), and the released code's 2I/U, 0 to 2.
    dice_points, dice_box, dice_both : float
        Of the masks the segmenter made of the points, the box, and all there is of both.
    mask : PackedMask or None
        The mask of the run's prompt mode.
    seconds : float
        In the reasoner and the segmenter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: str
    group: str
    modality: str
    supercategory: str
    category: str
    question: str
    text: str = ""
    parsed: bool = False
    refused: bool = False
    fault: str = ""
    reason: str = ""
    bbox: tuple[int, int, int, int] | None = None
    points: tuple[tuple[int, int], tuple[int, int]] | None = None
    iou: _Share = 0.0
    pdice: _Share = 0.0
    pdice_released: Annotated[float, Field(ge=0, le=2 + 1e-6)] = 0.0
    dice_points: _Share = 0.0
    dice_box: _Share = 0.0
    dice_both: _Share = 0.0
    mask: PackedMask | None = None
    seconds: float

    def dice(self, mode: PromptMode) -> float:
        """Dice with the prompts of a mode."""
        return {"points": self.dice_points, "box": self.dice_box, "both": self.dice_both}[mode]
