"""What an engine must be: the protocols of the CRM (reasoner) and the ASM (segmenter).

The two exchange only a box and points, so either can be replaced without the other.
Engines are called from one thread for the life of the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.prompts import Message, PromptTemplate
from napari_medreasoner.core.protocol import EngineInfo

__all__ = [
    "FramedReasoner",
    "Reasoner",
    "ReasonerInput",
    "Segmentation",
    "Segmenter",
    "SliceMask",
    "VolumeInput",
    "VolumeSegmenter",
    "question_for",
]


@dataclass(frozen=True, slots=True)
class ReasonerInput:
    """One question.

    Attributes
    ----------
    image : ndarray of uint8, shape (row, column, 3)
        The picture as displayed.
    question : str
        As the user typed it.
    messages : list of Message
        The question inside the prompt template, for a language model; see `question_for`.
    modality : str
        Empty when not known.
    """

    image: NDArray[np.uint8]
    question: str
    messages: list[Message]
    modality: str = ""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What a segmenter made of one picture.

    Attributes
    ----------
    mask : ndarray of bool, shape (row, column)
        The target.
    score : float
        Confidence, 0 to 1.
    state : Any
        What the next `segment` on the same embedding may take as `previous` (low-resolution
        logits, for the SAM family); None when the segmenter has no use for it.
    """

    mask: NDArray[np.bool_]
    score: float
    state: Any = None


@dataclass(frozen=True, slots=True)
class SliceMask:
    """The mask of one slice of a volume, with its index and a confidence from 0 to 1."""

    index: int
    mask: NDArray[np.bool_]
    score: float


@dataclass(frozen=True, slots=True)
class VolumeInput:
    """A structure prompted on one slice, to be followed through the stack of slices.

    Attributes
    ----------
    pictures : sequence of ndarray of uint8, each of shape (row, column, 3)
        The slices as displayed; each is made when it is asked for, so keep only a few.
    index : int
        The slice the prompts were given on.
    prompts : Prompts
        Pixels of that slice; may be empty when there is a mask.
    along : float
        Millimetres between slices.
    across : tuple of float
        Millimetres between rows and between columns.
    span : range
        Slices that may be visited, step 1; holds `index`.
    mask : ndarray of bool, shape (row, column), or None
        The mask of that slice, where the user has drawn or corrected it; it is taken as it is.
    """

    pictures: Sequence[NDArray[np.uint8]]
    index: int
    prompts: Prompts
    along: float
    across: tuple[float, float]
    span: range
    mask: NDArray[np.bool_] | None = None


@runtime_checkable
class Reasoner(Protocol):
    """Clinical Reasoning Module: writes a trace and an answer."""

    info: EngineInfo

    def stream(self, request: ReasonerInput) -> Iterator[str]:
        """Yield the text `<think>…</think><answer>{…}</answer>` piece by piece.

        Coordinates are pixels of `request.image`. Closing the iterator stops the work, so that
        a reasoner with nothing to show for a while yields empty strings.
        """
        ...


@runtime_checkable
class FramedReasoner(Reasoner, Protocol):
    """A reasoner that counts the sides of a picture in a unit of its own."""

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, in its own unit, of a picture of so many pixels, for its prompt."""
        ...


def question_for(
    reasoner: Reasoner,
    image: NDArray[np.uint8],
    question: str,
    template: PromptTemplate,
    modality: str = "",
) -> ReasonerInput:
    """Put a question into a prompt for one reasoner.

    The picture's size that the template names is the one the reasoner writes coordinates in,
    so that it is not told of one scale and read in another.

    Parameters
    ----------
    reasoner : Reasoner
        Who will be asked.
    image : ndarray of uint8, shape (row, column, 3)
        The picture as displayed.
    question : str
        As the user typed it.
    template : PromptTemplate
        What is said around it.
    modality : str
        Empty when not known.

    Raises
    ------
    QuestionError
        See `PromptTemplate.render`.
    ImageError
        When the reasoner cannot take a picture of this shape.
    """
    height, width = image.shape[:2]
    if isinstance(reasoner, FramedReasoner):
        width, height = reasoner.frame(width, height)
    return ReasonerInput(image, question, template.render(question, width, height), modality)


@runtime_checkable
class Segmenter(Protocol):
    """Anatomical Segmentation Module: turns prompts on an image into a mask."""

    info: EngineInfo

    def set_image(self, image: NDArray[np.uint8]) -> Any:
        """Do, once, what depends on the picture alone; the caller keeps the result.

        Parameters
        ----------
        image : ndarray of uint8, shape (row, column, 3)
            The picture as displayed.

        Returns
        -------
        Any
            The embedding. Its attribute `nbytes`, if it has one, is what a cache counts.
        """
        ...

    def segment(self, embedding: Any, prompts: Prompts, previous: Any = None) -> Segmentation:
        """Turn prompts (already clipped to the image) into a mask.

        Parameters
        ----------
        embedding : Any
            From `set_image`.
        prompts : Prompts
            All that are set now, not only the newest.
        previous : Any
            `Segmentation.state` of the mask these prompts correct; None starts afresh.
        """
        ...


@runtime_checkable
class VolumeSegmenter(Segmenter, Protocol):
    """A segmenter that can also follow the mask of one slice through a volume."""

    def propagate(self, request: VolumeInput) -> Iterator[SliceMask]:
        """Follow a structure slice by slice; closing the iterator stops the work.

        Yields
        ------
        SliceMask
            First that of the prompted slice, then neighbours outwards, one way after the
            other; a slice where the structure has ended is not yielded, nor any beyond it.
        """
        ...
