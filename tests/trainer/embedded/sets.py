"""A small data set with words: crops of the sample pictures."""

from __future__ import annotations

import json
from pathlib import Path

from medreasoner_trainer.data import DataSet, open_data
from tests.trainer.training.runs import write_data


def write_named(folder: Path) -> Path:
    """As `write_data`, under names that there are questions for."""
    write_data(folder)
    records = folder / "records.jsonl"
    lines = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    for line in lines:
        line["category"] = line["category"].replace("colonic", "colorectal")
        line["licence_tier"] = "open"
    records.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def opened(folder: Path, split: str = "train") -> DataSet:
    return open_data(folder, split, strict=True)
