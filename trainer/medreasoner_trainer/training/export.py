"""A checkpoint as a model folder that a backend, transformers or vLLM loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from medreasoner_trainer.data.saving import new_folder
from medreasoner_trainer.training.checkpoints import checkpoint_at, checkpoints_in, fault_of
from medreasoner_trainer.training.config import TrainConfig
from medreasoner_trainer.training.loading import load_config
from medreasoner_trainer.training.run import CONFIG, evaluations_of
from napari_medreasoner.core.errors import ExportError, SettingsError, WeightsError
from napari_medreasoner.engines.models.card import ModelFile
from napari_medreasoner.engines.models.folder import Manifest, sha256_of

__all__ = ["Exported", "Which", "export"]

Which = Literal["best", "last"]

_ADAPTER: Final = "adapter_config.json"
_TOKENS: Final = 64
_TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest difference of a logit, as a share of the largest logit."""


class Exported(NamedTuple):
    """What was exported: the step, and how far logits moved as a share of the largest."""

    step: int
    difference: float


def export(run: Path, out: Path, which: Which | int = "best") -> Exported:
    """Merge adapters, write weights, processor and generation settings, and load it all again.

    Parameters
    ----------
    run : Path
        Folder of a training run.
    out : Path
        New folder.
    which : "best", "last" or int
        By the validation split, by step, or the step itself.

    Raises
    ------
    SettingsError
        When the run has no such checkpoint.
    WeightsError
        When the checkpoint is not whole.
    ExportError
        When the folder cannot be written, or the model in it answers otherwise.
    """
    disable_progress_bar()
    config = load_config(str(run / CONFIG))
    step = _step(run, config, which)
    checkpoint = checkpoint_at(run, step)
    if fault := fault_of(checkpoint):
        raise WeightsError(f"{checkpoint} cannot be exported, as {fault}; take another step.")
    new_folder(out)
    model = _trained(config, checkpoint)
    before = _logits(model)
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    try:
        _write(model, config, checkpoint, out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written ({error.strerror}); free space.") from error
    del model
    difference = _difference(before, _logits(_loaded(out)))
    if difference > _TOLERANCE.get(before.dtype, _TOLERANCE[torch.float32]):
        raise ExportError(
            f"The exported model's logits differ from the trained one's by {difference:.2%}; the "
            "folder is not usable, so remove it and report this."
        )
    _manifest(out).write(out)
    return Exported(step, difference)


def _step(run: Path, config: TrainConfig, which: Which | int) -> int:
    steps = list(checkpoints_in(run))
    best = evaluations_of(run, config).best()
    wanted = which
    if which == "best" and best is not None:
        wanted = best.step
    elif which == "last" and steps:
        wanted = steps[-1]
    if wanted not in steps:
        raise SettingsError(
            f"{run} has no checkpoint for {which}; it has the steps: "
            f"{', '.join(map(str, steps)) or 'none'}."
        )
    return int(wanted)


def _loaded(folder: Path | str) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
    return model.to(device).eval()


def _trained(config: TrainConfig, checkpoint: Path) -> Any:
    if not (checkpoint / _ADAPTER).is_file():
        return _loaded(checkpoint)
    return PeftModel.from_pretrained(_loaded(config.model.path), checkpoint).eval()


def _logits(model: Any) -> torch.Tensor:
    """Of a text that is the same for every model of a vocabulary."""
    size = model.config.get_text_config().vocab_size
    tokens = torch.arange(_TOKENS, device=model.device).remainder(size)[None]
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=tokens).logits
    return logits.cpu()


def _difference(before: torch.Tensor, after: torch.Tensor) -> float:
    scale = before.float().abs().max().clamp(min=1e-6)
    return float((before.float() - after.float()).abs().max() / scale)


def _write(model: Any, config: TrainConfig, checkpoint: Path, out: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    # As in training: whatever picture comes is resized to this area, once.
    area = config.data.side**2
    processor.image_processor.size = {"shortest_edge": area, "longest_edge": area}
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=config.rollout.max_new_tokens,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _manifest(out: Path) -> Manifest:
    files = (
        ModelFile(
            path=path.relative_to(out).as_posix(),
            sha256=sha256_of(path),
            size=path.stat().st_size,
        )
        for path in sorted(out.rglob("*"))
        if path.is_file()
    )
    return Manifest(files=tuple(files), coordinates="resized pixels")
