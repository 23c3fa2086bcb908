"""Engine work on uploaded images; everything here runs on the worker's thread."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import EngineError, ImageError, InputError, MedReasonerError
from napari_medreasoner.core.geometry import Box, Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.core.protocol import (
    AskRequest,
    ErrorEvent,
    Event,
    ImageRef,
    SegmentReply,
    SegmentRequest,
    is_volume,
)
from napari_medreasoner.engines.base import (
    Reasoner,
    Segmentation,
    Segmenter,
    VolumeInput,
    VolumeSegmenter,
    question_for,
)
from napari_medreasoner.engines.grounder import Grounder
from napari_medreasoner.imaging.window import auto_window, to_rgb, to_uint8
from napari_medreasoner.server.store import RecentCache

__all__ = ["Workbench"]

logger = logging.getLogger(__name__)

_EMBEDDINGS: Final = 32
_WARM_UP_SIDE: Final = 64


@dataclass(frozen=True, slots=True)
class _View:
    """A displayed picture and what the segmenter made of it."""

    rgb: NDArray[np.uint8]
    embedding: Any


@contextmanager
def _engine_at_work() -> Iterator[None]:
    """Engines are foreign code: whatever they raise becomes an `EngineError`."""
    try:
        yield
    except MedReasonerError:
        raise
    except Exception as error:
        logger.exception("segmenter failed")
        raise EngineError(
            f"The segmenter failed ({type(error).__name__}); the server's log says where. Try "
            "other prompts or another segmenter."
        ) from error


def _slice_of(image: NDArray[Any], plane: SlicePlane | None) -> NDArray[Any]:
    """Cut the picture out of an image, as a view."""
    if is_volume(image.shape) != (plane is not None):
        raise ImageError(
            "The image is a volume; say which slice is meant."
            if plane is None
            else "The image is two-dimensional and has no slices; ask about it without one."
        )
    return image if plane is None else plane.cut(image)


def _check_shape(result: Segmentation, shape: tuple[int, ...]) -> None:
    if result.mask.shape != shape:
        raise EngineError(
            f"The segmenter gave a mask of shape {result.mask.shape} for an image of shape "
            f"{shape}; use another segmenter."
        )


class Workbench:
    """One reasoner and one segmenter at work on uploaded images.

    Parameters
    ----------
    reasoner : Reasoner
        The CRM.
    segmenter : Segmenter
        The ASM.
    """

    def __init__(self, reasoner: Reasoner, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._grounder = Grounder(reasoner, segmenter)
        self._views: RecentCache[_View] = RecentCache(_EMBEDDINGS)

    def warm_up(self) -> None:
        """Segment a small square, so that the first user does not pay for lazy set-up."""
        square = Box.from_corners(16, 16, 48, 48)
        picture = np.zeros((_WARM_UP_SIDE, _WARM_UP_SIDE, 3), np.uint8)
        picture[square.slices] = 200
        self._segmenter.segment(self._segmenter.set_image(picture), Prompts(box=square))

    def ask(self, image: NDArray[Any], request: AskRequest) -> Generator[Event]:
        """Answer a question.

        Yields
        ------
        Event
            Ends with a done or an error event; nothing is raised.
        """
        try:
            view = self._view(image, request.image)
            template = request.template or next(iter(BUILT_IN.values()))
            given = question_for(
                self._grounder.reasoner, view.rgb, request.question, template, request.modality
            )
        except MedReasonerError as error:
            yield ErrorEvent(code=error.code, message=str(error))
            return
        yield from self._grounder.ground(given, view.embedding)

    def segment(self, image: NDArray[Any], request: SegmentRequest) -> SegmentReply:
        """Turn prompts into a mask of the slice or the volume.

        Raises
        ------
        MedReasonerError
            When image, slice or prompts cannot be used, or the segmenter failed.
        """
        start = perf_counter()
        work = self._segment_volume if request.scope == "volume" else self._segment_slice
        with _engine_at_work():
            result = work(image, request)
            return SegmentReply(
                mask=PackedMask.pack(result.mask),
                score=result.score,
                milliseconds=(perf_counter() - start) * 1000,
            )

    def _view(self, image: NDArray[Any], ref: ImageRef) -> _View:
        def make() -> _View:
            rgb = np.ascontiguousarray(to_rgb(to_uint8(_slice_of(image, ref.plane), ref.window)))
            return _View(rgb, self._segmenter.set_image(rgb))

        with _engine_at_work():
            return self._views.get((ref.sha256, ref.plane, ref.window), make)

    def _segment_slice(self, image: NDArray[Any], request: SegmentRequest) -> Segmentation:
        view = self._view(image, request.image)
        height, width = view.rgb.shape[:2]
        result = self._segmenter.segment(view.embedding, request.prompts.clipped(width, height))
        _check_shape(result, (height, width))
        return result

    def _segment_volume(self, image: NDArray[Any], request: SegmentRequest) -> Segmentation:
        if not isinstance(self._segmenter, VolumeSegmenter):
            raise InputError(
                f'The segmenter "{self._segmenter.info.name}" cannot follow a structure through '
                "a volume; segment slice by slice or choose another segmenter."
            )
        plane = request.image.plane
        prompted = _slice_of(image, plane)
        if plane is None:
            raise InputError("The image is two-dimensional; segment it with the scope slice.")
        height, width = prompted.shape[:2]
        # One window for the whole volume: a structure must not change its grey on the way.
        window = request.image.window
        if window is None and image.dtype != np.uint8:
            window = auto_window(prompted)
        along, *across = (
            request.image.spacing[plane.axis],
            *np.delete(request.image.spacing, plane.axis),
        )
        given = VolumeInput(
            pictures=_Pictures(image, plane.axis, window),
            index=plane.index,
            prompts=request.prompts.clipped(width, height),
            along=along,
            across=(across[0], across[1]),
            span=range(image.shape[plane.axis]),
        )
        whole = np.zeros(image.shape[:3], np.bool_)
        slices = np.moveaxis(whole, plane.axis, 0)
        score = 0.0
        for one in self._segmenter.propagate(given):
            _check_shape(Segmentation(one.mask, one.score), (height, width))
            slices[one.index] = one.mask
            score = one.score if one.index == plane.index else score
        return Segmentation(whole, score)


class _Pictures(Sequence[NDArray[np.uint8]]):
    """The slices of a volume along an axis as displayed, each made when it is asked for."""

    def __init__(self, volume: NDArray[Any], axis: int, window: tuple[float, float] | None) -> None:
        self._slices = np.moveaxis(volume, axis, 0)
        self._window = window

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: Any) -> Any:
        return to_rgb(to_uint8(self._slices[index], self._window))
