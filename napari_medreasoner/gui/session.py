"""What the user sees and can undo, as evented state without Qt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import SignalGroupDescriptor

from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask

__all__ = ["BackendState", "Document", "MaskStack", "Session"]

BackendState = Literal["off", "starting", "ready", "lost"]
Ending = Literal["", "stopped", "interrupted", "no answer"]


@dataclass(frozen=True, slots=True)
class MaskStack:
    """The mask of a whole image, packed: a base, and slices that replace parts of it.

    A correction changes one slice, so two successive states share everything else.

    Attributes
    ----------
    shape : tuple of int
        Spatial shape of the image.
    base : PackedMask or None
        Of that shape; None is empty.
    slices : tuple of (SlicePlane, PackedMask)
        Applied in this order, the newest last.
    """

    shape: tuple[int, ...]
    base: PackedMask | None = None
    slices: tuple[tuple[SlicePlane, PackedMask], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever put in (a mask put in may itself hold no voxel)."""
        return self.base is None and not self.slices

    def with_part(self, plane: SlicePlane | None, part: PackedMask) -> MaskStack:
        """Replace one slice, or, without a plane, everything."""
        if plane is None:
            return MaskStack(self.shape, part)
        others = tuple(item for item in self.slices if item[0] != plane)
        return replace(self, slices=(*others, (plane, part)))

    def compose(self) -> NDArray[np.bool_]:
        """Unpack into one array of `shape`."""
        whole = np.zeros(self.shape, np.bool_) if self.base is None else self.base.unpack()
        for plane, part in self.slices:
            whole[plane.selector(whole.shape)] = part.unpack()
        return whole


@dataclass(frozen=True, slots=True)
class Document:
    """Everything about one image that undo brings back.

    Attributes
    ----------
    question, modality : str
        As last asked.
    trace : str
        The reasoning received so far.
    ending : str
        Why the trace ends early; empty when it does not.
    prompts : Prompts
        Box and points as they lie on the picture.
    plane : SlicePlane or None
        The slice they lie on; None for a 2D image.
    mask : MaskStack
        Of the whole image.
    score : float or None
        The segmenter's confidence in the last mask.
    algorithm : str
        Names and versions of the models behind the mask; empty while it is only painted.
    automatic : bool
        Nobody drew, moved or painted anything since the models answered.
    stale : bool
        The prompts changed and their mask has not arrived.
    painted : SlicePlane or None
        The slice whose mask the user drew on last; growth starts from there.
    proposed : Prompts
        What the model answered last, however it was corrected since.
    doubtful : tuple of SlicePlane
        Slices of the last growth that the segmenter was least sure of.
    """

    mask: MaskStack
    question: str = ""
    modality: str = ""
    trace: str = ""
    ending: Ending = ""
    prompts: Prompts = field(default_factory=Prompts)
    plane: SlicePlane | None = None
    score: float | None = None
    algorithm: str = ""
    automatic: bool = False
    stale: bool = False
    painted: SlicePlane | None = None
    proposed: Prompts = field(default_factory=Prompts)
    doubtful: tuple[SlicePlane, ...] = ()


@dataclass
class Session:
    """The current document and what is being done; every field signals its changes.

    Attributes
    ----------
    document : Document or None
        None until an image is chosen.
    status : str
        What is happening, in a few words.
    error : str
        One sentence on what went wrong last; empty when nothing did.
    asking, segmenting : bool
        Whether a question or a correction is under way.
    backend : str
        Whether the server is off, starting, ready or lost.
    engines : str
        What the server runs, and where; empty while that is not known.
    latency_ms : float or None
        Of the last answer or correction.
    can_undo, can_redo : bool
        Whether the history has a step in that direction.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    document: Document | None = None
    status: str = ""
    error: str = ""
    asking: bool = False
    segmenting: bool = False
    backend: BackendState = "off"
    engines: str = ""
    latency_ms: float | None = None
    can_undo: bool = False
    can_redo: bool = False
