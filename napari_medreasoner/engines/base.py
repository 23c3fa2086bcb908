"""What an engine must be: the protocols of the CRM (reasoner) and the ASM (segmenter).

The two exchange only a box and points, so either can be replaced without the other.
Engines are called from one thread for the life of the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.prompts import Message
from napari_medreasoner.core.protocol import EngineInfo

__all__ = ["Reasoner", "ReasonerInput", "Segmentation", "Segmenter", "VolumeSegmenter"]


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
        The question inside the prompt template, for a language model.
    modality : str
        Empty when not known.
    """

    image: NDArray[np.uint8]
    question: str
    messages: list[Message]
    modality: str = ""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A mask of the shape of the slice or volume, and a confidence from 0 to 1."""

    mask: NDArray[np.bool_]
    score: float


@runtime_checkable
class Reasoner(Protocol):
    """Clinical Reasoning Module: writes a trace and an answer."""

    info: EngineInfo

    def stream(self, request: ReasonerInput) -> Iterator[str]:
        """Yield the text `<think>…</think><answer>{…}</answer>` piece by piece.

        Coordinates are pixels of `request.image`. Closing the iterator stops the work.
        """
        ...


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
        """
        ...

    def segment(self, embedding: Any, prompts: Prompts) -> Segmentation:
        """Turn prompts (already clipped to the image) into a mask of shape (row, column)."""
        ...


@runtime_checkable
class VolumeSegmenter(Segmenter, Protocol):
    """A segmenter that can also grow the mask of one slice through a volume."""

    def segment_volume(
        self,
        volume: NDArray[np.uint8],
        plane: SlicePlane,
        prompts: Prompts,
        spacing: tuple[float, float, float],
    ) -> Segmentation:
        """Segment the structure prompted on one slice in the whole volume.

        Parameters
        ----------
        volume : ndarray of uint8, shape (slice, row, column) or (slice, row, column, 3)
            As displayed.
        plane : SlicePlane
            Where the prompts were given.
        prompts : Prompts
            Pixels of that slice.
        spacing : tuple of float
            Millimetres along (slice, row, column).
        """
        ...
