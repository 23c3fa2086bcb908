"""Small data sets with real files, made for the tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask


def ellipse(width: int, height: int, x: float, y: float, a: float, b: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:height, :width]
    inside: NDArray[np.bool_] = ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1
    return inside


def line_of(number: int, mask: NDArray[np.bool_], **fields: Any) -> dict[str, Any]:
    first, second = key_points_of_mask(mask)
    height, width = mask.shape
    return {
        "id": f"r{number}",
        "image": f"images/{number}.png",
        "mask": f"masks/{number}.png",
        "width": width,
        "height": height,
        "bbox": list(box_of_mask(mask).corners),
        "points": [[first.x, first.y], [second.x, second.y]],
        "modality": "CT",
        "supercategory": "abdomen anatomies",
        "category": "liver",
        "healthy": True,
        "source": "made",
        "licence": "CC0",
        "licence_tier": "open",
        "group": f"g{number}",
        "split": "train",
    } | fields


def write_lines(folder: Path, lines: list[Any]) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "records.jsonl").write_text("\n".join(texts), encoding="utf-8")


def write_set(folder: Path, count: int, **fields: Any) -> list[dict[str, Any]]:
    """Write noise with ellipses; sizes differ, so that rows and columns cannot be mixed up."""
    rng = np.random.default_rng(7)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    lines = []
    for number in range(count):
        width, height = 60 + number, 48
        mask = ellipse(width, height, 20 + number, 25, 14, 7)
        grey = np.where(mask, 160, 60) + rng.integers(-40, 40, mask.shape)
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
        lines.append(line_of(number, mask, **fields))
    write_lines(folder, lines)
    return lines


def mini() -> Path:
    """Folder of UMRG-mini; the test is skipped where it is not at hand."""
    shared = os.environ.get("MEDREASONER_SHARED")
    folder = Path(shared or "") / "data" / "umrg_mini"
    if not shared or not folder.is_dir():
        pytest.skip("MEDREASONER_SHARED names no folder with data/umrg_mini")
    return folder
