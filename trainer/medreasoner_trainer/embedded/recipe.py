"""Both embedded models from a data set, stage by stage, each stage in a folder of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoProcessor, GenerationConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from medreasoner_trainer.data import DataSet, open_data
from medreasoner_trainer.embedded.curves import Curve, draw_curves
from medreasoner_trainer.embedded.graphs import write_graph, write_weights
from medreasoner_trainer.embedded.loop import LOG
from medreasoner_trainer.embedded.reasoner.batches import Batches
from medreasoner_trainer.embedded.reasoner.exporting import write_graphs
from medreasoner_trainer.embedded.reasoner.model import new_model
from medreasoner_trainer.embedded.reasoner.numbers import Coordinates
from medreasoner_trainer.embedded.reasoner.reading import ReadingRecipe, ReadingTraining
from medreasoner_trainer.embedded.reasoner.supervised import SupervisedRecipe, SupervisedTraining
from medreasoner_trainer.embedded.reasoner.views import Pictures
from medreasoner_trainer.embedded.reasoner.vision import TOWER, VisionRecipe, VisionTraining
from medreasoner_trainer.embedded.reasoner.whitening import whiten_tokens
from medreasoner_trainer.embedded.reasoner.wording import Wording, names_for_traces
from medreasoner_trainer.embedded.segmenter.examples import Source
from medreasoner_trainer.embedded.segmenter.network import PromptUNet
from medreasoner_trainer.embedded.segmenter.training import (
    NETWORK,
    SegmenterRecipe,
    SegmenterTraining,
)
from napari_medreasoner.core.errors import ReadError, WeightsError
from napari_medreasoner.engines.embedded.small_qwen import PROMPT, SIDE
from napari_medreasoner.engines.embedded.window import CHANNELS
from napari_medreasoner.engines.embedded.window import SIDE as WINDOW
from napari_medreasoner.engines.models.weights import read_tensors
from napari_medreasoner.imaging.writers.atomic import make_folder, write_text

__all__ = ["ship_reasoner", "ship_segmenter", "train_reasoner", "train_segmenter", "write_sums"]

_WEIGHTS: Final = "unet.safetensors"
_SUMS: Final = "SHA256SUMS"

Report = Callable[[str], None]


def _split(data: Path, split: str, tiers: Collection[str]) -> DataSet:
    whole = open_data(data, split, strict=True)
    kept = [record for record in whole.records if record.tier in tiers]
    if not kept:
        raise ReadError(f'{data} has no record of the split "{split}" in: {", ".join(tiers)}.')
    return whole.with_records(kept)


def _told(data: DataSet) -> DataSet:
    """Records of categories that there are words for."""
    kept = [record for record in data.records if record.category in names_for_traces()]
    if not kept:
        raise ReadError(
            "No record has a category that there are questions for; see construct/clues."
        )
    return data.with_records(kept)


def train_segmenter(
    data: Path, out: Path, tiers: Sequence[str], recipe: SegmenterRecipe, report: Report
) -> None:
    """Train the U-Net, or go on where the folder's run was broken off.

    Parameters
    ----------
    data : Path
        Data set; its training split alone is opened.
    out : Path
        Folder of the run.
    tiers : sequence of str
        Licence tiers that are trained on.
    recipe : SegmenterRecipe
        How.
    report : callable
        Is told how it goes.

    Raises
    ------
    ReadError
        When the data cannot be read.
    ExportError
        When the folder cannot be written.
    """
    make_folder(out)
    SegmenterTraining(Source(_split(data, "train", tiers)), recipe, out).run(report)
    draw_curves([("U-Net", out / LOG, ("loss",))], out / "curve.png")


def ship_segmenter(run: Path, weights: Path) -> None:
    """Write a trained U-Net as the `unet` engine reads it."""
    network = PromptUNet()
    network.load_state_dict(read_tensors(run / NETWORK))
    make_folder(weights)
    write_weights(network.state_dict(), weights / _WEIGHTS, {"research": "non-commercial"})
    write_graph(
        network,
        {"planes": torch.zeros(2, CHANNELS, WINDOW, WINDOW)},
        ["logits"],
        {"planes": {0: "batch"}},
        weights / "unet.onnx",
    )


def train_reasoner(
    data: Path,
    out: Path,
    tiers: Sequence[str],
    vision: VisionRecipe,
    reading: ReadingRecipe,
    stages: Sequence[SupervisedRecipe],
    report: Report,
) -> None:
    """Train the tower, reading, then both together; write a checkpoint that GRPO can start from.

    Parameters
    ----------
    data : Path
        Data set; the training split teaches, the validation split is scored by the way.
    out : Path
        Folder; `cold` in it is the checkpoint, in transformers' layout.
    tiers : sequence of str
        Licence tiers that are trained on.
    vision : VisionRecipe
        How the tower is trained.
    reading : ReadingRecipe
        How the language model learns to read questions.
    stages : sequence of SupervisedRecipe
        How the whole model is, one after the other.
    report : callable
        Is told how it goes.

    Raises
    ------
    ReadError, ExportError
        As for `train_segmenter`.
    """
    train, validation = (_told(_split(data, split, tiers)) for split in ("train", "val"))
    pictures = Pictures(train, SIDE)
    model, processor = new_model(vision.seed)
    tower = out / "vision" / TOWER
    if not tower.is_file():
        seen = Pictures(validation, SIDE)
        VisionTraining(model.model.visual, pictures, seen, vision, tower.parent).run(report)
    model.model.visual.load_state_dict(read_tensors(tower))
    whiten_tokens(model.model.visual, pictures, vision.seed)
    batches = Batches(processor, PROMPT, pictures, Wording(train.records))
    ReadingTraining(model, batches, reading, out / "reading").run(report)
    curves: list[Curve] = [("vision tower", tower.parent / LOG, ("iou", "validation_iou"))]
    curves.append(("reading", out / "reading" / LOG, ("loss",)))
    for number, stage in enumerate(stages, start=1):
        folder = out / f"supervised-{number}"
        coordinates = Coordinates(processor.tokenizer, stage.spread)
        SupervisedTraining(model, batches, coordinates, stage, folder).run(report)
        curves.append((f"supervised {number}", folder / LOG, ("loss",)))
    save_checkpoint(model, processor, out / "cold")
    draw_curves(curves, out / "curve.png")


def save_checkpoint(model: Any, processor: Any, folder: Path) -> None:
    """Write a model in transformers' layout, with the picture size it was trained on."""
    processor.image_processor.size = {"shortest_edge": SIDE**2, "longest_edge": SIDE**2}
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def ship_reasoner(checkpoint: Path, weights: Path) -> None:
    """Write a checkpoint in half precision, with the graphs of the `small-qwen` engine.

    Parameters
    ----------
    checkpoint : Path
        In transformers' layout.
    weights : Path
        Folder in which `small-qwen` is written; an older one is replaced.

    Raises
    ------
    WeightsError
        When the checkpoint cannot be loaded.
    ExportError
        When the folder cannot be made.
    """
    disable_progress_bar()
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float16)
        processor = AutoProcessor.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"The model in {checkpoint} cannot be loaded ({type(error).__name__}); give the folder "
            "cold that medreasoner-train embedded reasoner wrote."
        ) from error
    folder = weights / "small-qwen"
    if folder.is_dir():
        shutil.rmtree(folder)
    make_folder(folder)
    save_checkpoint(model, processor, folder)
    # Loaded anew: rotations computed in half precision would go into the graphs.
    exact = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    write_graphs(exact, folder)


def write_sums(weights: Path) -> None:
    """Write SHA-256 of all shipped weights and graphs, as `sha256sum` does."""
    files = sorted(path for path in weights.rglob("*") if path.suffix in (".safetensors", ".onnx"))
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(weights).as_posix()}\n"
        for path in files
    ]
    write_text(weights / _SUMS, "".join(lines))
