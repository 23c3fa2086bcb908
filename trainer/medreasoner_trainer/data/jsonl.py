"""A folder with `records.jsonl` and the images and masks it names, such as UMRG-mini."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from medreasoner_trainer.data.fields import Fields, fields_of, record_from
from medreasoner_trainer.data.loaded import FolderPictures, Loaded, existing_inside, read_bytes
from medreasoner_trainer.data.pixels import encode_mask, picture_size
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import CoordinateSpace, DataSet, Record
from medreasoner_trainer.data.saving import PictureFolder
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["RECORDS", "read_jsonl", "save_jsonl"]

RECORDS: Final = "records.jsonl"


def read_jsonl(folder: Path, *, strict: bool) -> Loaded:
    """Read a folder: one JSON object a line, with the keys of `Fields`.

    Raises
    ------
    ReadError
        When the file cannot be read; when strict, at the first bad record.
    """
    problems = Problems(strict=strict)
    records = []
    lines = read_bytes(folder / RECORDS).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(_record(folder, line))
        except (ValueError, ReadError) as error:
            problems.add(RECORDS, number, error)
    return Loaded(tuple(records), problems.found, FolderPictures(folder))


def _record(folder: Path, line: bytes) -> Record:
    fields = Fields.model_validate_json(line)
    image = existing_inside(folder, fields.image)
    existing_inside(folder, fields.mask)
    return record_from(fields, lambda: picture_size(image, fields.image))


def save_jsonl(data: DataSet, folder: Path, space: CoordinateSpace = "pixel") -> None:
    """Write records, images (bytes unchanged) and masks (grey PNG) into an empty folder.

    Parameters
    ----------
    data : DataSet
        Its `problems` are left behind.
    folder : Path
        Made where it does not exist; must be empty.
    space : CoordinateSpace
        What the coordinates are written in.

    Raises
    ------
    ReadError
        When an image or mask cannot be read.
    ExportError
        When something cannot be written. Without `records.jsonl`, written last, the folder
        is not a data set yet.
    """
    pictures = PictureFolder(folder)
    lines = []
    for record in data.records:
        paths = {
            "image": pictures.add_image(data, record),
            "mask": pictures.add_mask(record.mask, encode_mask(data.mask(record))),
        }
        lines.append(json.dumps(fields_of(record, space) | paths, ensure_ascii=False) + "\n")
    write_text(folder / RECORDS, "".join(lines))
