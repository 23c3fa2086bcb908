"""Parquet files as U-MRG was released: `train.parquet`, `test.parquet`, images inside.

Columns: `data_source`, `prompt` (the question is the first message's content), `images` and
`masks` (lists of one {bytes, path}), `reward_model.ground_truth` (a JSON string with `bbox_2d` and
`point_2d`) and `extra_info` (`id`, `supercategory`, `category`; ours has the record's other fields
too). A side file `umrg_rl.json` may give modality, health and reasoning by id. Coordinates are
pixels of the stored image.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from medreasoner_trainer.data.fields import Fields, coordinates_of, fields_of, record_from
from medreasoner_trainer.data.gathering import Gathering
from medreasoner_trainer.data.loaded import Loaded, read_bytes
from medreasoner_trainer.data.pixels import decode_mask, encode_mask, picture_size
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import DataSet, Record
from medreasoner_trainer.data.saving import new_folder
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.writers.atomic import replace_atomically

__all__ = ["read_parquet", "save_parquet"]

_SIDE: Final = "umrg_rl.json"
_SOURCE: Final = "umrg"
_UNASSIGNED: Final = "unassigned"
_ROWS: Final = 16
"""Rows in a group we write: what is decoded to reach one image."""

_GROUPS: Final = 4
"""Row groups kept decoded."""

_TEXTS: Final = ("prompt", "reward_model", "extra_info")
_EXTRA: Final = (
    "id",
    "supercategory",
    "category",
    "trace",
    "modality",
    "healthy",
    "source",
    "licence",
    "licence_tier",
    "group",
    "split",
    "width",
    "height",
)


class _Truth(BaseModel):
    """The ground truth string."""

    bbox_2d: list[Any]
    point_2d: list[Any]


class _Side(BaseModel):
    """What is used of an entry of the side file."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    modality: Annotated[str, Field(validation_alias=AliasChoices("modal", "modality"))] = ""
    healthy: Annotated[bool | None, Field(validation_alias=AliasChoices("health", "healthy"))] = (
        None
    )
    trace: Annotated[str, Field(validation_alias=AliasChoices("think", "trace"))] = ""


@dataclass(frozen=True, slots=True)
class _Table:
    """One file, and the number of the first row of each of its row groups."""

    path: Path
    starts: tuple[int, ...]

    def cell(self, column: str, row: int) -> bytes:
        """The picture in a row (from 0) of `images` or `masks`."""
        group = bisect_right(self.starts, row) - 1
        cells = _row_group(self.path, group, column)
        return _bytes_in(cells[row - self.starts[group]].as_py(), f"{self.path.name}#{row + 1}")


@lru_cache(maxsize=_GROUPS)
def _row_group(path: Path, group: int, column: str) -> Any:
    try:
        with pq.ParquetFile(path) as file:
            return file.read_row_group(group, columns=[column])[column]
    except (OSError, pa.ArrowException) as error:
        raise ReadError(f"{path} cannot be read ({type(error).__name__}); restore it.") from error


def _bytes_in(cell: Any, name: str) -> bytes:
    content = cell[0].get("bytes") if cell and isinstance(cell[0], dict) else None
    if not isinstance(content, bytes):
        raise ReadError(f"{name} holds no picture; restore the data set.")
    return content


@dataclass(frozen=True, slots=True)
class _ParquetPictures:
    """Pictures in table cells, named by file and row from 1."""

    tables: Mapping[str, _Table]

    def image_file(self, record: Record) -> bytes:
        return self._cell("images", record.image)

    def mask(self, record: Record) -> NDArray[np.bool_]:
        return decode_mask(self._cell("masks", record.mask), record.mask)

    def _cell(self, column: str, name: str) -> bytes:
        file, row = name.rsplit("#", 1)
        return self.tables[file].cell(column, int(row) - 1)


def read_parquet(paths: Sequence[Path], *, strict: bool) -> Loaded:
    """Read the files of one data set; a file's name up to the first "-" is its split.

    Images are decoded when asked for; at opening only the headers of those whose size the row
    does not give.

    Raises
    ------
    ReadError
        When a file is not such a table; when strict, at the first bad row.
    """
    gathering = Gathering(strict=strict)
    side = _side_file(paths[0].parent)
    tables = {}
    for path in paths:
        table = _opened(path)
        tables[path.name] = table
        for number, row in enumerate(_rows(path), start=1):
            try:
                gathering.add(path.name, number, _record(table, number, row, side))
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                malformed = ReadError(f"{error} is missing or malformed")
                gathering.leave_out(path.name, number, malformed)
            except (ValueError, ReadError) as error:
                gathering.leave_out(path.name, number, error)
    return gathering.loaded(_ParquetPictures(tables))


def _opened(path: Path) -> _Table:
    try:
        with pq.ParquetFile(path) as file:
            found, groups = set(file.schema_arrow.names), file.metadata
            sizes = [groups.row_group(index).num_rows for index in range(groups.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise ReadError(f"{path} is not a Parquet file; give one of U-MRG's form.") from error
    missing = [name for name in (*_TEXTS, "images", "masks") if name not in found]
    if missing:
        raise ReadError(f'{path} has no column "{missing[0]}"; give a table of U-MRG\'s form.')
    return _Table(path, (0, *np.cumsum(sizes[:-1]).tolist()))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows without their pictures."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(_TEXTS)):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ReadError(f"{path} cannot be read ({type(error).__name__}); restore it.") from error


def _record(table: _Table, number: int, row: dict[str, Any], side: Mapping[str, _Side]) -> Record:
    name = f"{table.path.name}#{number}"
    truth = _Truth.model_validate_json(row["reward_model"]["ground_truth"])
    extra = {key: value for key, value in row["extra_info"].items() if value is not None}
    extra["id"] = str(extra["id"])
    told = side[extra["id"]].model_dump() if extra["id"] in side else {}
    fields = Fields.model_validate(
        {"split": table.path.stem.split("-")[0]}
        | told
        | extra
        | {"image": name, "mask": name, "bbox": truth.bbox_2d, "points": truth.point_2d}
        | {"question": row["prompt"][0]["content"] or ""}
    )
    return record_from(fields, _header(table, number, name))


def _header(table: _Table, number: int, name: str) -> Callable[[], tuple[int, int]]:
    return lambda: picture_size(table.cell("images", number - 1), name)


def _side_file(folder: Path) -> dict[str, _Side]:
    path = folder / _SIDE
    if not path.is_file():
        return {}
    try:
        entries = TypeAdapter(list[_Side]).validate_json(read_bytes(path))
    except ValidationError as error:
        raise ReadError(f"{path} is not a list of entries with an id; repair it.") from error
    return {entry.id: entry for entry in entries}


def save_parquet(data: DataSet, folder: Path, *, strict: bool = False) -> DataSet:
    """Write one file for each split into an empty folder.

    The images' bytes are unchanged, and the schema says that they are images, so that
    `datasets.load_dataset` decodes them. Parameters and result as of
    `medreasoner_trainer.data.jsonl.save_jsonl`.

    Raises
    ------
    ReadError
        When strict, at the first record whose pixels cannot be read.
    ExportError
        When something cannot be written.
    """
    new_folder(folder)
    left_out = Problems(strict=strict)
    written: list[Record] = []
    splits: dict[str, list[Record]] = defaultdict(list)
    for record in data.records:
        splits[record.split or _UNASSIGNED].append(record)
    for split, records in splits.items():
        with (
            replace_atomically(folder / f"{split}.parquet") as temporary,
            pq.ParquetWriter(temporary, _schema()) as writer,
        ):
            for start in range(0, len(records), _ROWS):
                rows = []
                for record in records[start : start + _ROWS]:
                    with left_out.noted(*data.origin(record)):
                        rows.append(_row(data, record))
                        written.append(record)
                writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))
    return data.with_records(written, left_out.found)


def _row(data: DataSet, record: Record) -> dict[str, Any]:
    box, points = coordinates_of(record, "pixel")
    fields = fields_of(record)
    image = data.image_file(record)
    picture_size(image, record.image)  # bytes that are no picture are refused here
    return {
        "data_source": _SOURCE,
        "prompt": [{"role": "user", "content": record.question}],
        "images": [{"bytes": image, "path": None}],
        "masks": [{"bytes": encode_mask(data.mask(record)), "path": None}],
        "reward_model": {"ground_truth": json.dumps({"bbox_2d": box, "point_2d": points})},
        "extra_info": {key: fields[key] for key in _EXTRA},
    }


@lru_cache(maxsize=1)
def _schema() -> Any:
    """Arrow schema with the note by which `datasets` knows images, in its oldest spelling."""
    whole, text = pa.int64(), pa.string()
    others: dict[str, pa.DataType] = {"healthy": pa.bool_(), "width": whole, "height": whole}
    kinds = [(key, others.get(key, text)) for key in _EXTRA]
    pictures = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    schema = pa.schema(
        {
            "data_source": text,
            "prompt": pa.list_(pa.struct([("role", text), ("content", text)])),
            "images": pictures,
            "masks": pictures,
            "reward_model": pa.struct([("ground_truth", text)]),
            "extra_info": pa.struct(kinds),
        }
    )
    note = {"dtype": "string", "_type": "Value"}
    features = {
        "data_source": note,
        "prompt": [{"role": note, "content": note}],
        "images": [{"_type": "Image"}],
        "masks": [{"_type": "Image"}],
        "reward_model": {"ground_truth": note},
        "extra_info": {key: {"dtype": str(kind), "_type": "Value"} for key, kind in kinds},
    }
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
