"""Engine work on uploaded images; everything here runs on the worker's thread."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from time import perf_counter
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.errors import (
    ConsentError,
    EngineError,
    InputError,
    MedReasonerError,
    MemoryShortageError,
)
from napari_medreasoner.core.geometry import Box, Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.core.protocol import (
    AskRequest,
    ErrorEvent,
    Event,
    ImageRef,
    PropagatedEvent,
    PropagateRequest,
    SegmentReply,
    SegmentRequest,
    SliceEvent,
    StatusEvent,
)
from napari_medreasoner.engines.base import (
    Reasoner,
    Segmenter,
    VolumeInput,
    VolumeSegmenter,
    question_for,
)
from napari_medreasoner.engines.grounder import Grounder, as_generator
from napari_medreasoner.imaging.window import auto_window
from napari_medreasoner.server.metrics import Metrics
from napari_medreasoner.server.store import RecentCache
from napari_medreasoner.server.views import Pictures, View, picture_of, slice_of, view_key

__all__ = ["Workbench"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_WARM_UP_SIDE: Final = 64
_NEIGHBOURS: Final = (1, -1, 2, -2)
"""Slices that are encoded ahead, in this order: a user scrolls to them next."""


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


def _check_shape(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> None:
    if mask.shape != shape:
        raise EngineError(
            f"The segmenter gave a mask of shape {mask.shape} for an image of shape {shape}; use "
            "another segmenter."
        )


class Workbench:
    """One reasoner and one segmenter at work on uploaded images.

    Parameters
    ----------
    reasoner : Reasoner
        The CRM.
    segmenter : Segmenter
        The ASM.
    embedding_bytes : int
        How much of embeddings is kept.
    metrics : Metrics
        Told how long each stage took.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        segmenter: Segmenter,
        embedding_bytes: int = 2**30,
        metrics: Metrics | None = None,
    ) -> None:
        self._reasoner = reasoner
        self._segmenter = segmenter
        self._metrics = metrics or Metrics()
        self._grounder = Grounder(reasoner, segmenter)
        self._views: RecentCache[Any, View] = RecentCache(embedding_bytes)
        self._embedding_bytes = embedding_bytes
        self._ahead: deque[tuple[NDArray[Any], ImageRef]] = deque(maxlen=len(_NEIGHBOURS))

    @property
    def embedding_bytes(self) -> int:
        """Bytes of all embeddings that are kept."""
        return self._views.nbytes

    def warm_up(self) -> None:
        """Use both engines once, so that the first user does not pay for lazy set-up.

        A reasoner on another machine is left alone: nothing is sent there unasked.
        """
        square = Box.from_corners(16, 16, 48, 48)
        picture = np.zeros((_WARM_UP_SIDE, _WARM_UP_SIDE, 3), np.uint8)
        picture[square.slices] = 200
        self._segmenter.segment(self._segmenter.set_image(picture), Prompts(box=square))
        if self._reasoner.info.leaves_machine:
            return
        template = next(iter(BUILT_IN.values()))
        question = question_for(self._reasoner, picture, "What is shown?", template)
        with closing(as_generator(self._reasoner.stream(question))) as pieces:
            next(pieces, None)

    def forget(self, hashes: set[str]) -> None:
        """Drop everything that was made of some images."""
        self._views.drop(lambda key: key[0] in hashes)
        self._ahead.clear()

    def encode_ahead(self) -> bool:
        """Encode one slice next to the one last worked on; False when none is left."""
        if not self._ahead:
            return False
        image, ref = self._ahead.popleft()
        full = self._views.nbytes > self._embedding_bytes // 2  # never at the cost of a used one
        if view_key(ref) not in self._views and not full:
            try:
                self._view(image, ref)
            except MedReasonerError:
                self._ahead.clear()  # whoever comes to that slice is told
        return bool(self._ahead)

    def ask(self, image: NDArray[Any], request: AskRequest) -> Generator[Event]:
        """Answer a question.

        Yields
        ------
        Event
            Ends with a done or an error event; nothing is raised.
        """
        try:
            self._require_consent(request)
            view = self._view(image, request.image)
            template = request.template or next(iter(BUILT_IN.values()))
            given = question_for(
                self._grounder.reasoner, view.rgb, request.question, template, request.modality
            )
        except MedReasonerError as error:
            yield ErrorEvent(code=error.code, message=str(error))
            return
        start = perf_counter()
        yield from self._grounder.ground(given, view.embedding)
        self._metrics.engine_seconds.labels("ask").observe(perf_counter() - start)
        self._look_around(image, request.image)

    def _require_consent(self, request: AskRequest) -> None:
        if self._reasoner.info.leaves_machine and not request.consent:
            raise ConsentError(
                f'The reasoner "{self._reasoner.info.title}" sends the picture to another machine '
                "and you have not agreed to that; agree in the backend panel, or choose another."
            )

    def segment(
        self, image: NDArray[Any], request: SegmentRequest, client: str | None = None
    ) -> SegmentReply:
        """Turn prompts into a mask of their slice.

        Raises
        ------
        MedReasonerError
            When image, slice or prompts cannot be used, or the segmenter failed.
        """
        start = perf_counter()
        view = self._view(image, request.image)
        height, width = view.rgb.shape[:2]
        prompts = request.prompts.clipped(width, height)
        previous = view.states.get(client) if client and request.refine else None
        result = self._sparing(lambda: self._segmenter.segment(view.embedding, prompts, previous))
        _check_shape(result.mask, (height, width))
        view.keep(client, result.state)
        seconds = perf_counter() - start
        self._metrics.engine_seconds.labels("segment").observe(seconds)
        self._look_around(image, request.image)
        return SegmentReply(
            mask=PackedMask.pack(result.mask), score=result.score, milliseconds=seconds * 1000
        )

    def propagate(self, image: NDArray[Any], request: PropagateRequest) -> Generator[Event]:
        """Follow a structure from its slice through a volume.

        Yields
        ------
        Event
            A slice event for each slice, then a propagated or an error event; nothing is raised.
        """
        start = perf_counter()
        slices = 0
        try:
            segmenter, given, shape = self._volume_work(image, request)
            yield StatusEvent(stage="propagating")
            with _engine_at_work(), closing(as_generator(segmenter.propagate(given))) as found:
                for one in found:
                    _check_shape(one.mask, shape)
                    slices += 1
                    mask = PackedMask.pack(one.mask)
                    yield SliceEvent(index=one.index, mask=mask, score=one.score)
        except MedReasonerError as error:
            yield ErrorEvent(code=error.code, message=str(error))
            return
        seconds = perf_counter() - start
        self._metrics.engine_seconds.labels("propagate").observe(seconds)
        yield PropagatedEvent(slices=slices, milliseconds=seconds * 1000)

    def _volume_work(
        self, image: NDArray[Any], request: PropagateRequest
    ) -> tuple[VolumeSegmenter, VolumeInput, tuple[int, int]]:
        if not isinstance(self._segmenter, VolumeSegmenter):
            raise InputError(
                f'The segmenter "{self._segmenter.info.name}" cannot follow a structure through '
                "a volume; segment slice by slice or choose another segmenter."
            )
        plane = request.image.plane
        prompted = slice_of(image, plane)
        if plane is None:
            raise InputError("The image has one slice only; there is nothing to follow through.")
        # One window for the whole volume: a structure must not change its grey on the way.
        window = request.image.window
        if window is None and image.dtype != np.uint8:
            window = auto_window(prompted)
        height, width = prompted.shape[:2]
        mask = _mask_of(request, (height, width))
        spacing = request.image.spacing
        across = [spacing[axis] for axis in range(3) if axis != plane.axis]
        given = VolumeInput(
            pictures=Pictures(image, plane.axis, window),
            index=plane.index,
            prompts=request.prompts if mask is not None else request.prompts.clipped(width, height),
            along=spacing[plane.axis],
            across=(across[0], across[1]),
            span=_span_of(request, plane, image.shape[plane.axis]),
            mask=mask,
        )
        return self._segmenter, given, (height, width)

    def _view(self, image: NDArray[Any], ref: ImageRef) -> View:
        def make() -> View:
            start = perf_counter()
            rgb = picture_of(image, ref)
            view = View(rgb, self._sparing(lambda: self._segmenter.set_image(rgb)))
            self._metrics.engine_seconds.labels("encode").observe(perf_counter() - start)
            return view

        return self._views.get(view_key(ref), make)

    def _sparing(self, work: Callable[[], T]) -> T:
        """Do engine work; when memory runs out, once more without the embeddings that are kept."""
        try:
            with _engine_at_work():
                return work()
        except MemoryShortageError:
            self._metrics.shortages.inc()
            logger.warning("out of memory: embeddings are dropped, and the work is done again")
            self._views.drop()
            self._ahead.clear()
        with _engine_at_work():
            return work()

    def _look_around(self, image: NDArray[Any], ref: ImageRef) -> None:
        """Note the neighbours of a slice, to be encoded when there is time."""
        plane = ref.plane
        if plane is None:
            return
        self._ahead.clear()
        for step in _NEIGHBOURS:
            index = plane.index + step
            if 0 <= index < image.shape[plane.axis]:
                neighbour = SlicePlane(axis=plane.axis, index=index)
                self._ahead.append((image, ref.model_copy(update={"plane": neighbour})))


def _mask_of(request: PropagateRequest, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    if request.mask is None:
        return None
    if request.mask.shape != shape:
        raise InputError(
            f"The mask has the shape {request.mask.shape} and its slice {shape}; send that of "
            "the slice."
        )
    mask = request.mask.unpack()
    if not mask.any():
        raise InputError("The mask of the slice is empty; there is nothing to follow.")
    return mask


def _span_of(request: PropagateRequest, plane: SlicePlane, slices: int) -> range:
    first, last = request.span or (0, slices - 1)
    if not first <= plane.index <= last:
        raise InputError(
            f"The slices {first} to {last} do not hold the prompted slice {plane.index}; widen "
            "the range."
        )
    return range(first, min(last, slices - 1) + 1)
