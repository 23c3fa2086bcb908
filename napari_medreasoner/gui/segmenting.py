"""One correction: prompts to the backend, a mask back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.gui.backend import Backend
from napari_medreasoner.gui.session import Document
from napari_medreasoner.gui.target import Target

__all__ = ["Segmented", "Wanted", "only_clicks_added", "segment"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Prompts on a slice; `refine` says that only clicks were added since the last mask."""

    target: Target
    prompts: Prompts
    refine: bool


@dataclass(frozen=True, slots=True)
class Segmented:
    """The mask of the slice, plain and packed, and what made it in how many milliseconds."""

    mask: NDArray[np.bool_]
    packed: PackedMask
    score: float
    milliseconds: float
    algorithm: str


async def segment(backend: Backend, wanted: Wanted) -> Segmented:
    """Have prompts turned into a mask.

    Raises
    ------
    MedReasonerError
        Whatever the backend reports.
    """
    async with backend.client() as client:
        picture = await asyncio.to_thread(wanted.target.picture)
        start = perf_counter()
        reply = await client.segment(picture, wanted.prompts, refine=wanted.refine)
        milliseconds = (perf_counter() - start) * 1000
        algorithm = (await backend.engines(client)).of_mask
    packed = await asyncio.to_thread(PackedMask.pack, reply.mask)
    return Segmented(reply.mask, packed, reply.score, milliseconds, algorithm)


def only_clicks_added(before: Document, prompts: Prompts, plane: SlicePlane | None) -> bool:
    """Whether the mask on show belongs to the same prompts but for new clicks."""
    if before.stale or before.plane != plane or before.prompts.box != prompts.box:
        return False
    known = len(before.prompts.points)
    return len(prompts.points) > known and prompts.points[:known] == before.prompts.points
