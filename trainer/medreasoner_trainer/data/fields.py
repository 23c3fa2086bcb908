"""What a file says about a record, and the one way from its coordinates to pixels and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from medreasoner_trainer.data.record import CoordinateSpace, Record
from napari_medreasoner.core.geometry import Box, Point

__all__ = ["Fields", "coordinates_of", "fields_of", "record_from"]

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-(2**31), lt=2**31)]
_Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
_SCALES: Final[dict[CoordinateSpace, float]] = {"norm1000": 1000.0, "norm1": 1.0}
_SAME: Final = (
    "id",
    "image",
    "mask",
    "question",
    "trace",
    "modality",
    "supercategory",
    "category",
    "healthy",
    "source",
    "licence",
    "group",
    "split",
)
"""Fields that are in a file as they are in a `Record`."""


class Fields(BaseModel):
    """One record as files have it; fields of the file that are not here are left out.

    Attributes
    ----------
    bbox, points : tuple of float
        x1, y1, x2, y2 (max-exclusive), and two (x, y), in `coord_space`.
    width, height : int or None
        Of the stored image; None where the file does not say.
    coord_space : CoordinateSpace
        What the coordinates are; pixels of `image_size`, or of the stored image without it.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    image: str
    mask: str
    bbox: tuple[_Number, _Number, _Number, _Number]
    points: tuple[tuple[_Number, _Number], tuple[_Number, _Number]]
    width: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    coord_space: CoordinateSpace = "pixel"
    image_size: _Size | None = None
    question: str = ""
    trace: str = ""
    modality: str = ""
    supercategory: str = ""
    category: str = ""
    healthy: bool | None = None
    source: str = ""
    licence: str = ""
    licence_tier: str = "unstated"
    group: str = ""
    split: str = ""


def record_from(fields: Fields, stored_size: Callable[[], tuple[int, int]]) -> Record:
    """Make the record, with its coordinates in pixels of the stored image.

    Parameters
    ----------
    fields : Fields
        As read.
    stored_size : callable
        Gives width and height of the stored image; called only where the fields do not.

    Raises
    ------
    ValueError
        When the box is empty or leaves the image, a point does, or a field is too long.
    ReadError
        When `stored_size` cannot read the image.
    """
    size = (fields.width, fields.height) if fields.width and fields.height else stored_size()
    scale = _SCALES.get(fields.coord_space)
    drawn_on = (scale, scale) if scale else fields.image_size or size
    same = {name: getattr(fields, name) for name in _SAME}
    return Record.model_validate(
        same
        | {
            "image_size": size,
            "box": _box(fields.bbox, drawn_on, size),
            "points": tuple(_point(point, drawn_on, size) for point in fields.points),
            "tier": fields.licence_tier,
        }
    )


def _box(bbox: tuple[float, ...], drawn_on: tuple[float, float], size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = bbox
    if not (0 <= x1 < x2 <= drawn_on[0] and 0 <= y1 < y2 <= drawn_on[1]):
        raise ValueError(f"bbox: {list(bbox)} is empty or leaves the image")
    left, right = (round(x / drawn_on[0] * size[0]) for x in (x1, x2))
    top, bottom = (round(y / drawn_on[1] * size[1]) for y in (y1, y2))
    # A box of less than one pixel still covers the pixel it is in.
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return Box.from_corners(left, top, max(right, left + 1), max(bottom, top + 1))


def _point(
    point: tuple[float, float], drawn_on: tuple[float, float], size: tuple[int, int]
) -> Point:
    for value, side in zip(point, drawn_on, strict=True):
        if not 0 <= value < side:
            raise ValueError(f"points: {list(point)} leaves the image")
    x, y = (
        min(round(value / side * pixels), pixels - 1)
        for value, side, pixels in zip(point, drawn_on, size, strict=True)
    )
    return Point(x=x, y=y)


def coordinates_of(record: Record, space: CoordinateSpace) -> tuple[list[float], list[list[float]]]:
    """Box and points in a space; fractions are not rounded, so that reading gives the same pixels.

    Returns
    -------
    tuple of list
        [x1, y1, x2, y2] and [[x, y], [x, y]].
    """
    scale = _SCALES.get(space)

    def scaled(value: int, side: int) -> float:
        return value if scale is None else value / side * scale

    width, height = record.image_size
    x1, y1, x2, y2 = record.box.corners
    box = [scaled(x1, width), scaled(y1, height), scaled(x2, width), scaled(y2, height)]
    return box, [[scaled(point.x, width), scaled(point.y, height)] for point in record.points]


def fields_of(record: Record, space: CoordinateSpace = "pixel") -> dict[str, Any]:
    """Write a record as `Fields` reads it, by the names files use."""
    box, points = coordinates_of(record, space)
    same = {name: getattr(record, name) for name in _SAME}
    width, height = record.image_size
    return same | {
        "width": width,
        "height": height,
        "bbox": box,
        "points": points,
        "coord_space": space,
        "licence_tier": record.tier,
    }
