"""A small data set of real pictures, a tiny model, and runs on both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medreasoner_trainer.training.loading import load_config
from medreasoner_trainer.training.run import Ending, Run
from napari_medreasoner.core.masks import box_of_mask, key_points_of_mask
from napari_medreasoner.imaging.samples import sample_cases, sample_folder

SMALL = (
    "model.freeze=none",
    "data.side=84",
    "batch.prompts=2",
    "batch.generations=2",
    "batch.per_device=4",
    "rollout.max_new_tokens=8",
    "evaluation.records=2",
    "evaluation.max_new_tokens=8",
    "log.pictures=0",
    "optimiser.learning_rate=1e-3",
)
"""Settings of runs whose figures do not matter."""

SFT = ("method=sft", "batch.generations=1", "batch.per_device=2")

TAUGHT = (
    "batch.prompts=8",
    "batch.per_device=8",
    "optimiser.max_steps=80",
    "optimiser.learning_rate=3e-3",
    "evaluation.every=80",
    "log.every=20",
    "evaluation.max_new_tokens=56",
)
"""What teaches the tiny model to write answers, in ten seconds."""

WRITING = (
    "batch.generations=4",
    "rollout.max_new_tokens=56",
    "evaluation.max_new_tokens=56",
    "optimiser.learning_rate=2e-4",
    "guard.parse_failures=1",
    "guard.reward_drop=1",
    "log.every=1",
)
"""What lets it write whole ones in GRPO."""


def write_data(folder: Path) -> Path:
    """Crops of the flat samples: every picture has another size; one in four is validation."""
    folder.mkdir(parents=True)
    lines = []
    for case in sample_cases():
        if case.slice_index is not None:
            continue
        image = np.asarray(Image.open(sample_folder() / case.image).convert("RGB"))
        mask = np.asarray(Image.open(sample_folder() / case.mask).convert("L")) > 0
        box = box_of_mask(mask)
        for crop in range(4):
            rows = slice(max(0, box.y1 - 8 - 9 * crop), box.y2 + 5)
            columns = slice(max(0, box.x1 - 6), box.x2 + 7 + 16 * crop)
            name, cut = f"{case.id}-{crop}", np.ascontiguousarray(mask[rows, columns])
            Image.fromarray(image[rows, columns]).save(folder / f"{name}.png")
            Image.fromarray(cut).save(folder / f"{name}-mask.png")
            first, second = key_points_of_mask(cut)
            record = {
                "id": name,
                "image": f"{name}.png",
                "mask": f"{name}-mask.png",
                "bbox": list(box_of_mask(cut).corners),
                "points": [[first.x, first.y], [second.x, second.y]],
                "question": case.question,
                "trace": "It is here.",
                "modality": case.modality,
                "supercategory": "eye anatomies" if crop % 2 else "abdomen anatomies",
                "category": case.target,
                "licence": case.licence,
                "group": case.id,
                "split": "train" if crop else "val",
            }
            lines.append(json.dumps(record) + "\n")
    (folder / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def prepared(model: Path, data: Path, out: Path, *overrides: str) -> Run:
    where = (f"model.path={model}", f"data.path={data}")
    return Run.prepared(load_config("tiny-cpu", [*where, *SMALL, *overrides]), out)


def train(model: Path, data: Path, out: Path, *overrides: str, resume: bool = False) -> Ending:
    return prepared(model, data, out, *overrides).train(resume=resume)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    """Whether two checkpoints have the same weights, bit for bit."""
    ours, theirs = weights(first), weights(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
