"""A folder with `records.jsonl` and the images and masks it names, such as UMRG-mini."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from medreasoner_trainer.data.fields import Fields, fields_of, record_from
from medreasoner_trainer.data.gathering import Gathering
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
    gathering = Gathering(strict=strict)
    lines = read_bytes(folder / RECORDS).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            gathering.add(RECORDS, number, _record(folder, line))
        except (ValueError, ReadError) as error:
            gathering.leave_out(RECORDS, number, error)
    return gathering.loaded(FolderPictures(folder))


def _record(folder: Path, line: bytes) -> Record:
    fields = Fields.model_validate_json(line)
    image = existing_inside(folder, fields.image)
    existing_inside(folder, fields.mask)
    return record_from(fields, lambda: picture_size(image, fields.image))


def save_jsonl(
    data: DataSet, folder: Path, space: CoordinateSpace = "pixel", *, strict: bool = False
) -> DataSet:
    """Write records, images (bytes unchanged) and masks (grey PNG) into an empty folder.

    Parameters
    ----------
    data : DataSet
        Its `problems` are left behind.
    folder : Path
        Made where it does not exist; must be empty.
    space : CoordinateSpace
        What the coordinates are written in.
    strict : bool
        Raise at the first record whose pixels cannot be read; else it is left out.

    Returns
    -------
    DataSet
        The records that were written, and the problems of the others.

    Raises
    ------
    ReadError
        When strict, at the first bad record.
    ExportError
        When something cannot be written. Without `records.jsonl`, written last, the folder
        is not a data set yet.
    """
    pictures = PictureFolder(folder)
    left_out = Problems(strict=strict)
    lines, written = [], []
    for record in data.records:
        with left_out.noted(*data.origin(record)):
            mask = encode_mask(data.mask(record))
            paths = {
                "image": pictures.add_image(data, record),
                "mask": pictures.add_mask(record.mask, mask),
            }
            lines.append(json.dumps(fields_of(record, space) | paths, ensure_ascii=False) + "\n")
            written.append(record)
    write_text(folder / RECORDS, "".join(lines))
    return data.with_records(written, left_out.found)
