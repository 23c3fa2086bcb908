"""A data set of twelve records: three sample images as they are, mirrored and turned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from napari_medreasoner.imaging.samples import sample_cases, sample_folder

SUPERCATEGORIES = {"optic disc": "eye anatomies", "colonic gland": "histology structure"}


def write_small_data(folder: Path) -> Path:
    """Write it; images of one sample share a group, and the first record has no question."""
    folder.mkdir()
    lines = []
    for case in sample_cases():
        if case.slice_index is not None:
            continue
        image = np.asarray(Image.open(sample_folder() / case.image))
        mask = np.asarray(Image.open(sample_folder() / case.mask).convert("L")) > 0
        for turns in range(4):
            name = f"{case.id}-{turns}"
            turned = np.ascontiguousarray(np.rot90(mask, turns))
            Image.fromarray(np.rot90(image, turns)).save(folder / f"{name}.png")
            Image.fromarray(turned).save(folder / f"{name}-mask.png")
            first, second = key_points_of_mask(turned)
            record = {
                "id": name,
                "image": f"{name}.png",
                "mask": f"{name}-mask.png",
                "width": turned.shape[1],
                "height": turned.shape[0],
                "bbox": list(box_of_mask(turned).corners),
                "points": [[first.x, first.y], [second.x, second.y]],
                "question": case.question if lines else "",
                "modality": case.modality,
                "supercategory": SUPERCATEGORIES.get(case.target, "abdomen anatomies"),
                "category": case.target,
                "licence": case.licence,
                "group": case.id,
                "split": "test",
            }
            lines.append(json.dumps(record) + "\n")
    (folder / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
