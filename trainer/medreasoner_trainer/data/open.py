"""Opens a data set, of whatever kind its path is."""

from __future__ import annotations

from pathlib import Path

from medreasoner_trainer.data.coco import ANNOTATIONS, read_coco
from medreasoner_trainer.data.jsonl import RECORDS, read_jsonl
from medreasoner_trainer.data.loaded import Loaded
from medreasoner_trainer.data.pairs import IMAGES, MASKS, read_pairs
from medreasoner_trainer.data.record import DataSet
from napari_medreasoner.core.errors import ReadError

__all__ = ["open_data"]


def open_data(path: Path, split: str | None = None, *, strict: bool = False) -> DataSet:
    """Open a data set.

    Parameters
    ----------
    path : Path
        A folder with `records.jsonl`, with Parquet files as U-MRG was released, with
        `annotations.json` in COCO's form, or with `images` and `masks`; or one `.parquet` or
        COCO `.json` file.
    split : str or None
        Only the records of this split.
    strict : bool
        Raise at the first bad record; else it is left out and listed in `problems`.

    Raises
    ------
    ReadError
        When the path is none of these, is damaged as a whole, or has no record of the split;
        when strict, at the first bad record.
    """
    data = _loaded(path, strict=strict)
    if split is None:
        return data
    chosen = [record for record in data.records if record.split == split]
    if not chosen:
        raise ReadError(f'{path} has no record of the split "{split}"; name another.')
    return data.with_records(chosen)


def _loaded(path: Path, *, strict: bool) -> Loaded:
    if (path / RECORDS).is_file():
        return read_jsonl(path, strict=strict)
    tables = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    if tables or (path.suffix == ".parquet" and path.is_file()):
        # Arrow takes half a second to import, which only this kind needs.
        from medreasoner_trainer.data.parquet import read_parquet

        return read_parquet(tables or [path], strict=strict)
    if (path / ANNOTATIONS).is_file():
        return read_coco(path / ANNOTATIONS, strict=strict)
    if path.suffix == ".json" and path.is_file():
        return read_coco(path, strict=strict)
    if (path / IMAGES).is_dir() and (path / MASKS).is_dir():
        return read_pairs(path, strict=strict)
    raise ReadError(
        f"{path} holds no data set: no {RECORDS}, Parquet files, {ANNOTATIONS}, or {IMAGES} and "
        f"{MASKS} folders; give the folder of one."
    )
