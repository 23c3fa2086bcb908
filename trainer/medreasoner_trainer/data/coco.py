"""COCO JSON: images, annotations with segmentations, categories.

A record's own fields travel in an annotation's "umrg" object, its key points as `keypoints`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medreasoner_trainer.data.fields import Fields, fields_of, record_from
from medreasoner_trainer.data.gathering import Gathering
from medreasoner_trainer.data.loaded import Loaded, existing_inside, read_bytes
from medreasoner_trainer.data.pixels import picture_size
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import DataSet, Record
from medreasoner_trainer.data.rle import mask_of_segmentation, runs_of_mask
from medreasoner_trainer.data.saving import PictureFolder
from napari_medreasoner.core.errors import ImageError, ReadError
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["ANNOTATIONS", "read_coco", "save_coco"]

ANNOTATIONS: Final = "annotations.json"
_OWN: Final = (
    "id",
    "question",
    "trace",
    "modality",
    "healthy",
    "source",
    "licence",
    "licence_tier",
    "group",
    "split",
)
_IMAGES: Final = "images"
_VISIBLE: Final = 2
_Entries = dict[Any, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _CocoPictures:
    """Image files beside the JSON file, and masks drawn from its segmentations."""

    folder: Path
    segmentations: dict[str, object]

    def image_file(self, record: Record) -> bytes:
        return read_bytes(existing_inside(self.folder, record.image))

    def mask(self, record: Record) -> NDArray[np.bool_]:
        return mask_of_segmentation(self.segmentations[record.mask], *record.image_size)


def read_coco(path: Path, *, strict: bool) -> Loaded:
    """Read a COCO file; its images lie beside it or in `images` there.

    Box and key points are the file's where it has two key points for an annotation, and the
    mask's otherwise (boxes of COCO files need not be tight).

    Raises
    ------
    ReadError
        When it is not a COCO file; when strict, at the first bad annotation.
    """
    gathering = Gathering(strict=strict)
    content = _parsed(path)
    images = _by_id(content["images"])
    categories = _by_id(content.get("categories") or [])
    segmentations = {}
    for number, annotation in enumerate(content["annotations"], start=1):
        mask = f"{path.name}#{number}"
        try:
            record = _record(path.parent, mask, annotation, images, categories)
            gathering.add(path.name, number, record)
            segmentations[mask] = annotation["segmentation"]
        except (KeyError, TypeError, AttributeError) as error:
            gathering.leave_out(path.name, number, ReadError(f"{error} is missing or malformed"))
        except (ValueError, ReadError, ImageError) as error:
            gathering.leave_out(path.name, number, error)
    return gathering.loaded(_CocoPictures(path.parent, segmentations))


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path} is not JSON; export it again.") from error
    lists = ("images", "annotations")
    if not isinstance(content, dict) or any(type(content.get(key)) is not list for key in lists):
        raise ReadError(f"{path} has no lists of images and annotations; give a COCO file.")
    return content


def _by_id(entries: Iterable[Any]) -> _Entries:
    return {entry["id"]: entry for entry in entries if isinstance(entry, dict) and "id" in entry}


def _record(
    folder: Path, mask: str, annotation: dict[str, Any], images: _Entries, categories: _Entries
) -> Record:
    image = images[annotation["image_id"]]
    category = categories.get(annotation.get("category_id"), {})
    name = image["file_name"]
    if not (folder / name).is_file():
        name = f"{_IMAGES}/{name}"
    file = existing_inside(folder, name)
    size = picture_size(file, name)
    bbox, points = _place(annotation, *size)
    own = annotation.get("umrg") or {"id": str(annotation["id"])}
    return record_from(
        Fields.model_validate(
            {key: value for key, value in own.items() if key in _OWN}
            | {"image": name, "mask": mask, "bbox": bbox, "points": points}
            | {"category": category.get("name") or ""}
            | {"supercategory": category.get("supercategory") or ""}
        ),
        lambda: size,
    )


def _place(annotation: dict[str, Any], width: int, height: int) -> tuple[list[Any], list[Any]]:
    """Corners and key points."""
    keys = annotation.get("keypoints") or []
    if len(keys) == 6:
        x, y, across, down = annotation["bbox"]
        return [x, y, x + across, y + down], [keys[:2], keys[3:5]]
    mask = mask_of_segmentation(annotation["segmentation"], width, height)
    points = [[point.x, point.y] for point in key_points_of_mask(mask)]
    return list(box_of_mask(mask).corners), points


def save_coco(data: DataSet, folder: Path, *, strict: bool = False) -> DataSet:
    """Write `annotations.json` (run lengths) and images (bytes unchanged) into an empty folder.

    Parameters and result as of `medreasoner_trainer.data.jsonl.save_jsonl`.

    Raises
    ------
    ReadError
        When strict, at the first record whose pixels cannot be read.
    ExportError
        When something cannot be written.
    """
    pictures = PictureFolder(folder)
    left_out = Problems(strict=strict)
    content = _Content()
    written = []
    for record in data.records:
        with left_out.noted(*data.origin(record)):
            mask = data.mask(record)
            content.add(record, pictures.add_image(data, record), mask)
            written.append(record)
    write_text(folder / ANNOTATIONS, content.text())
    return data.with_records(written, left_out.found)


class _Content:
    """What the file holds: each image and category once, an annotation for every record."""

    def __init__(self) -> None:
        self._images: dict[str, dict[str, Any]] = {}
        self._categories: dict[tuple[str, str], dict[str, Any]] = {}
        self._annotations: list[dict[str, Any]] = []

    def add(self, record: Record, name: str, mask: NDArray[np.bool_]) -> None:
        width, height = record.image_size
        picture = {"file_name": name, "width": width, "height": height}
        kind = {"name": record.category, "supercategory": record.supercategory}
        image = self._images.setdefault(name, {"id": len(self._images) + 1} | picture)
        category = self._categories.setdefault(
            (record.supercategory, record.category), {"id": len(self._categories) + 1} | kind
        )
        number = len(self._annotations) + 1
        places = {"id": number, "image_id": image["id"], "category_id": category["id"]}
        self._annotations.append(places | _annotation(record, mask))

    def text(self) -> str:
        content = {
            "images": list(self._images.values()),
            "annotations": self._annotations,
            "categories": list(self._categories.values()),
        }
        return json.dumps(content, ensure_ascii=False)


def _annotation(record: Record, mask: NDArray[np.bool_]) -> dict[str, Any]:
    own = fields_of(record)
    return {
        "bbox": [record.box.x1, record.box.y1, record.box.width, record.box.height],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": runs_of_mask(mask),
        "keypoints": [part for point in record.points for part in (point.x, point.y, _VISIBLE)],
        "num_keypoints": len(record.points),
        "umrg": {key: own[key] for key in _OWN},
    }
