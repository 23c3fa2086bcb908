"""One image-question-target record, and what a set of them can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from napari_medreasoner.core.geometry import Box, Point

__all__ = ["CoordinateSpace", "DataSet", "Problem", "Record", "Tier"]

CoordinateSpace = Literal["pixel", "norm1000", "norm1"]
"""How a file writes coordinates: pixels of `image_size`, thousandths of a side, or fractions.

In a `Record` they are always pixels of the stored image; the space is what a file is read from
and written in.
"""

Tier = Literal["open", "noncommercial", "unstated"]
"""What may be done with an image; see the data set's own licences."""

_Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]
_Split = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]*$", max_length=50)]


class Record(BaseModel):
    """One structure in one image.

    Attributes
    ----------
    id : str
        Unique in its data set.
    image, mask : str
        Where the data set finds them: a path relative to its folder, or a row of its table.
    image_size : (int, int)
        Width and height of the stored image in pixels.
    box : Box
        Tight around the mask, max-exclusive, pixels of the stored image.
    points : tuple of two Point
        The mask's key points, pixels of the stored image.
    question : str
        Implicit clinical question; empty where none was written yet.
    trace : str
        Reasoning that leads to the answer; empty where none was written yet.
    modality, supercategory, category : str
        As in "CT", "abdomen anatomies" and "left kidney".
    healthy : bool or None
        True for normal anatomy, False for pathology, None when not known.
    source, licence : str
        Data set the image comes from, and its licence as quoted there.
    tier : Tier
        What that licence allows.
    group : str
        Patient or image that records share; no group may cross a split. Empty: the image itself.
    split : str
        As in "train", "val" and "test", of letters, digits, "_" and "-"; empty when not assigned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Name
    image: _Name
    mask: _Name
    image_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    box: Box
    points: tuple[Point, Point]
    question: str = ""
    trace: str = ""
    modality: str = ""
    supercategory: str = ""
    category: str = ""
    healthy: bool | None = None
    source: str = ""
    licence: str = ""
    tier: Tier = "unstated"
    group: str = ""
    split: _Split = ""


class Problem(NamedTuple):
    """A record that cannot be used: file, line or row from 1 (0: the file as a whole), and why."""

    file: str
    line: int
    reason: str


class DataSet(Protocol):
    """Records and the pixels they point to."""

    @property
    def records(self) -> Sequence[Record]:
        """The usable records, in file order."""
        ...

    @property
    def problems(self) -> Sequence[Problem]:
        """The records left out, and why."""
        ...

    def with_records(self, records: Sequence[Record], problems: Sequence[Problem] = ()) -> DataSet:
        """The same pixels with other records: some of these, or these with other texts.

        `problems` are of those that had to be left out, and come after the ones there are.
        """
        ...

    def origin(self, record: Record) -> tuple[str, int]:
        """File and line (row) from 1 that the record was read from; 0: the file is the record."""
        ...

    def image_file(self, record: Record) -> bytes:
        """The image as its file has it: PNG, JPEG or TIFF.

        Raises
        ------
        ReadError
            When it cannot be read.
        """
        ...

    def image(self, record: Record) -> NDArray[np.uint8]:
        """Pixels of shape (row, column, 3), of the size the record says.

        Raises
        ------
        ReadError
            When they are missing, damaged or of another size.
        """
        ...

    def mask(self, record: Record) -> NDArray[np.bool_]:
        """Mask of shape (row, column), of the size of the image; errors as `image`."""
        ...
