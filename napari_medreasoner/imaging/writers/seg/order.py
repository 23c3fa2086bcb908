"""What is asked of the process that makes a DICOM segmentation, as it travels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.imaging.volume import SourceFrame
from napari_medreasoner.imaging.writers.segment import Segment, Term

__all__ = ["NO_ROOM", "Description", "Order", "receive", "send"]

NO_ROOM: Final = 74
"""Exit code of the process when there is no room for its answer (EX_IOERR of sysexits.h)."""

_TERMS: Final = ("category", "kind", "side")


@dataclass(frozen=True, slots=True)
class Description:
    """A `Segment` without its mask."""

    label: str
    category: Term
    kind: Term
    side: Term | None
    algorithm: str
    automatic: bool

    @classmethod
    def of(cls, segment: Segment) -> Self:
        """Describe a segment."""
        values = {field.name: getattr(segment, field.name) for field in fields(cls)}
        return cls(**values)

    @classmethod
    def parsed(cls, values: dict[str, Any]) -> Self:
        """Read what `asdict` and JSON made of one."""
        terms = {name: values[name] and Term(*values[name]) for name in _TERMS}
        return cls(**(values | terms))


@dataclass(frozen=True, slots=True)
class Order:
    """One segmentation to be made.

    Attributes
    ----------
    frames : tuple of SourceFrame
        Of each plane of the masks, in their order.
    shape : tuple of int
        Of each mask: (plane, row, column).
    affine : tuple
        4 x 4, (column, row, plane) to RAS millimetres, as the image was read.
    segments : tuple of Description
        One for each mask.
    memory, seconds : int, float
        What the process may take.
    """

    frames: tuple[SourceFrame, ...]
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    segments: tuple[Description, ...]
    memory: int
    seconds: float


def send(order: Order, masks: Sequence[NDArray[np.bool_]], stream: IO[bytes]) -> None:
    """Write an order and its masks: a line of JSON, then eight voxels a byte."""
    # JSON escapes what is no text, so file names of any bytes come through.
    stream.write(json.dumps(asdict(order), default=str).encode() + b"\n")
    for mask in masks:
        stream.write(np.packbits(mask).data)


def receive(stream: IO[bytes]) -> tuple[Order, list[NDArray[np.bool_]]]:
    """Read what `send` wrote."""
    values: dict[str, Any] = json.loads(stream.readline())
    shape = tuple(values["shape"])
    count = int(np.prod(shape))
    frames = tuple(SourceFrame(Path(file), frame) for file, frame in values.pop("frames"))
    segments = tuple(map(Description.parsed, values.pop("segments")))
    masks = [
        np.unpackbits(np.frombuffer(stream.read(-(-count // 8)), np.uint8), count=count)
        .view(np.bool_)
        .reshape(shape)
        for _ in segments
    ]
    return Order(frames=frames, segments=segments, **(values | {"shape": shape})), masks
