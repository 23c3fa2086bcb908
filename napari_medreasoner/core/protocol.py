"""The wire between client and server: routes, limits and models, in one place.

Every route needs `Authorization: Bearer TOKEN`. An image is uploaded once, under the
SHA-256 of its content, and named by that hash afterwards; the server may forget it at any
time (`UnknownImageError`) and the client uploads it again. Coordinates are pixels of the
slice asked about (`napari_medreasoner.core.geometry`).

A client that names itself (`CLIENT_HEADER`) holds a lease: its images are kept while it is there
and forgotten when it goes, and of its requests to one route only the newest goes on.
"""

from __future__ import annotations

import hashlib
from math import prod
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from napari_medreasoner.core.geometry import Box, Point, Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.prompts import PromptTemplate

__all__ = [
    "ASK",
    "CAPABILITIES",
    "CLIENT_HEADER",
    "HEALTH",
    "IMAGES",
    "LEASE",
    "METRICS",
    "MODALITIES",
    "PROPAGATE",
    "PROTOCOL_VERSION",
    "SEGMENT",
    "AnswerEvent",
    "AskRequest",
    "Capabilities",
    "DoneEvent",
    "EngineInfo",
    "ErrorBody",
    "ErrorEvent",
    "Event",
    "EventAdapter",
    "Health",
    "ImageDtype",
    "ImageHeader",
    "ImageRef",
    "MaskEvent",
    "PropagateRequest",
    "PropagatedEvent",
    "SegmentReply",
    "SegmentRequest",
    "Sha256",
    "SliceEvent",
    "StatusEvent",
    "ThinkEvent",
    "content_hash",
    "is_volume",
]

PROTOCOL_VERSION: Final = 2
HEALTH: Final = "/v1/health"
CAPABILITIES: Final = "/v1/capabilities"
MODALITIES: Final = (
    "CT",
    "MRI",
    "X-ray",
    "Ultrasound",
    "Mammography",
    "Fundus",
    "OCT",
    "Endoscopy",
    "Dermoscopy",
    "Histopathology",
)
"""The ten kinds of image of U-MRG-14K; an empty string stands for not known."""

IMAGES: Final = "/v1/images"  # PUT and HEAD IMAGES/{sha256}?dtype=…&shape=…&shape=…
ASK: Final = "/v1/ask"  # POST -> text/event-stream of Event
SEGMENT: Final = "/v1/segment"  # POST -> SegmentReply
PROPAGATE: Final = "/v1/propagate"  # POST -> text/event-stream of Event
LEASE: Final = "/v1/lease"  # PUT renews it, DELETE ends it
METRICS: Final = "/metrics"  # Prometheus' text format

CLIENT_HEADER: Final = "X-Medreasoner-Client"
"""32 hexadecimal digits that a client makes up for its life."""

ImageDtype = Literal["uint8", "int16", "uint16", "float32"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Millimetres = Annotated[float, Field(gt=0)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def is_volume(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape has slices; a last axis of length 3 is RGB."""
    return len(shape) == 4 or (len(shape) == 3 and shape[-1] != 3)


class ImageHeader(_Wire):
    """How the raw bytes of an uploaded image are to be read (C order, little endian).

    Attributes
    ----------
    dtype : str
        Element type.
    shape : tuple of int
        (row, column), (row, column, 3), (slice, row, column) or (slice, row, column, 3).
    """

    dtype: ImageDtype
    shape: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(min_length=2, max_length=4)
    ]

    @model_validator(mode="after")
    def _grey_or_rgb(self) -> Self:
        if len(self.shape) == 4 and self.shape[-1] != 3:
            raise ValueError("the fourth axis of an image is RGB and has length 3")
        return self

    @property
    def nbytes(self) -> int:
        """Length of the raw bytes."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


def content_hash(image: NDArray[np.generic]) -> str:
    """SHA-256 over element type, shape and bytes of a C-contiguous array."""
    digest = hashlib.sha256(f"{image.dtype.name} {image.shape} ".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


class ImageRef(_Wire):
    """One displayed picture: an uploaded image, a slice of it, and its grey window.

    Attributes
    ----------
    sha256 : str
        Content hash of the uploaded array.
    plane : SlicePlane or None
        The slice; None for a 2D image.
    window : (float, float) or None
        Intensities shown as black and as white, the first one higher where high values are
        dark; None lets the server take the 0.5th and 99.5th percentile of the slice.
    spacing : tuple of float
        Millimetres between voxels along (slice, row, column).
    """

    sha256: Sha256
    plane: SlicePlane | None = None
    window: tuple[float, float] | None = None
    spacing: tuple[_Millimetres, _Millimetres, _Millimetres] = (1.0, 1.0, 1.0)


class AskRequest(_Wire):
    """A question about one picture.

    Attributes
    ----------
    modality : str
        As in "CT" or "Fundus"; empty when not known.
    template : PromptTemplate or None
        None takes the built-in Reasoning template.
    consent : bool
        The user has agreed that the picture leaves the server's machine, where the reasoner
        sends it elsewhere (`EngineInfo.leaves_machine`).
    """

    image: ImageRef
    question: str
    modality: Annotated[str, Field(max_length=64)] = ""
    template: PromptTemplate | None = None
    consent: bool = False


class SegmentRequest(_Wire):
    """Prompts to be turned into a mask of their slice.

    Attributes
    ----------
    refine : bool
        Only clicks were added since this client's last mask of the picture, so that mask may
        be fed back to the segmenter.
    """

    image: ImageRef
    prompts: Prompts
    refine: bool = False


class PropagateRequest(_Wire):
    """A structure to be followed through the slices of a volume.

    Attributes
    ----------
    image : ImageRef
        The prompted or corrected slice.
    prompts : Prompts
        On that slice; may be empty when there is a mask.
    span : (int, int) or None
        First and last slice that may be visited; None is all of them.
    mask : PackedMask or None
        The mask of the slice, where the user has corrected it; it is taken as it is.
    """

    image: ImageRef
    prompts: Prompts = Field(default_factory=Prompts)
    span: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    mask: PackedMask | None = None


class SegmentReply(_Wire):
    """A mask of the slice, and how sure the segmenter is (0 to 1)."""

    mask: PackedMask
    score: Annotated[float, Field(ge=0, le=1)]
    milliseconds: float


class EngineInfo(_Wire):
    """What an engine says of itself.

    Attributes
    ----------
    name : str
        Registry name.
    title : str
        As shown to the user.
    description : str
        One sentence: what it does and how far to trust it.
    licence : str
        SPDX expression of code and weights.
    coordinates : str
        Convention of the coordinates it writes or takes, e.g. "pixels of the given image".
    input_window : str
        What it sees of the intensities.
    volumes : bool
        Whether a segmenter can grow a mask through a volume.
    prompts : tuple of str
        What a segmenter takes; other prompts are refused by name.
    leaves_machine : bool
        Whether pictures are sent to another machine, which needs the user's consent.
    weights : str
        Which weights are loaded: hub id and revision, or folder name, and the first twelve
        digits of their SHA-256; empty when there are none.
    device : str
        What it computes on, e.g. "cpu" or "cuda:0 NVIDIA H100"; for a model behind an API the
        name of its host.
    """

    name: str
    title: str
    description: str
    licence: str
    coordinates: str
    input_window: str
    volumes: bool = False
    prompts: tuple[Literal["box", "points", "negative points"], ...] = (
        "box",
        "points",
        "negative points",
    )
    leaves_machine: bool = False
    weights: str = ""
    device: str = "cpu"


class Health(_Wire):
    """The server is up; `protocol` must equal the client's `PROTOCOL_VERSION`.

    Attributes
    ----------
    waiting : int
        Jobs in the queue.
    """

    status: Literal["ok"] = "ok"
    protocol: int = PROTOCOL_VERSION
    version: str
    waiting: Annotated[int, Field(ge=0)] = 0


class Capabilities(_Wire):
    """What this server can do."""

    protocol: int = PROTOCOL_VERSION
    crm: EngineInfo
    asm: EngineInfo
    max_body_bytes: int
    templates: tuple[str, ...]


class ErrorBody(_Wire):
    """Body of every reply with an error status; `code` names the class in `core.errors`."""

    code: str
    message: str


class StatusEvent(_Wire):
    """What is being done now.

    Attributes
    ----------
    stage : str
        "waiting", "reasoning", "segmenting" or "propagating".
    ahead : int
        While waiting: jobs that are done before this one.
    """

    type: Literal["status"] = "status"
    stage: Literal["waiting", "reasoning", "segmenting", "propagating"]
    ahead: Annotated[int, Field(ge=0)] = 0


class ThinkEvent(_Wire):
    """The next piece of the reasoning trace."""

    type: Literal["think"] = "think"
    text: str


class AnswerEvent(_Wire):
    """Box and the two key points."""

    type: Literal["answer"] = "answer"
    box: Box
    points: tuple[Point, Point]


class MaskEvent(_Wire):
    """The mask of the slice that the segmenter made of box and points."""

    type: Literal["mask"] = "mask"
    mask: PackedMask
    score: Annotated[float, Field(ge=0, le=1)]


class DoneEvent(_Wire):
    """The stream is complete: the only proof that nothing was cut off.

    Attributes
    ----------
    trace_sha256 : str
        Of the UTF-8 text of all think events, in order.
    reason_ms, segment_ms, first_token_ms : float
        Time in the reasoner, in the segmenter, and until the reasoner's first text.
    """

    type: Literal["done"] = "done"
    trace_sha256: Sha256
    reason_ms: float
    segment_ms: float
    first_token_ms: float


class SliceEvent(_Wire):
    """The mask of one slice of the volume, and how sure the segmenter is (0 to 1)."""

    type: Literal["slice"] = "slice"
    index: Annotated[int, Field(ge=0)]
    mask: PackedMask
    score: Annotated[float, Field(ge=0, le=1)]


class PropagatedEvent(_Wire):
    """The structure was followed to its ends: as many slices were sent as `slices` says."""

    type: Literal["propagated"] = "propagated"
    slices: int
    milliseconds: float


class ErrorEvent(_Wire):
    """The stream ended without a mask; `code` names the class in `core.errors`."""

    type: Literal["error"] = "error"
    code: str
    message: str


Event = Annotated[
    StatusEvent
    | ThinkEvent
    | AnswerEvent
    | MaskEvent
    | DoneEvent
    | SliceEvent
    | PropagatedEvent
    | ErrorEvent,
    Field(discriminator="type"),
]

EventAdapter: Final[TypeAdapter[Event]] = TypeAdapter(Event)
"""Reads one event from JSON."""
