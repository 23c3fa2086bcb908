"""What stops a run, and what it leaves behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from medreasoner_trainer.training.config import Guard
from medreasoner_trainer.training.history import Evaluations, History
from medreasoner_trainer.training.run import Run
from medreasoner_trainer.training.watching import CollapseGuard, SignalCatcher
from napari_medreasoner.core.errors import EngineError, ExportError
from tests.trainer.training.runs import WRITING, lines_of, prepared, train


def verdict(tmp_path: Path, *logs: dict[str, float], failures: tuple[float, ...] = ()) -> str:
    evaluations = Evaluations(tmp_path / "evaluations.jsonl", "iou")
    for step, share in enumerate(failures):
        evaluations.add(step, {"parse_failures": share, "iou": 0.0})
    return CollapseGuard(Guard(patience=2), evaluations).verdict(logs)


def test_a_run_that_has_gone_wrong_is_told_from_one_that_has_not(tmp_path: Path) -> None:
    drift = "sampling/sampling_logp_difference/mean"
    assert verdict(tmp_path, {"kl": 11}, {"kl": 0.1}, {"reward": 1}, {"reward": 0.9}) == ""
    assert "KL has stayed above 10" in verdict(tmp_path, {"kl": 11}, {"kl": 12})
    assert "0.3 apart in log-probability" in verdict(tmp_path, {drift: 0.2}, {drift: 0.3})
    rewards = [{"reward": value} for value in (2.0, 1.9, 0.7, 0.5)]
    assert verdict(tmp_path, *rewards) == "the mean reward has fallen to 0.5"
    assert verdict(tmp_path, *rewards[:3]) == ""
    assert verdict(tmp_path, failures=(0.1, 0.3)) == ""
    assert "60% of the validation answers" in verdict(tmp_path, failures=(0.1, 0.6))


def test_a_collapsed_run_ends_with_a_sentence_and_its_best_checkpoint(
    taught: Path, data: Path, tmp_path: Path
) -> None:
    ruinous = (*WRITING, "optimiser.learning_rate=0.1", "guard.parse_failures=0.3")
    with pytest.raises(EngineError, match=r"stopped at step \d: 100% of the validation answers"):
        train(taught, data, tmp_path, *ruinous, "optimiser.max_steps=6", "evaluation.every=1")
    assert lines_of(tmp_path / "log.jsonl")[-1]["step"] < 6
    assert list(tmp_path.glob("checkpoint-*/sha256.json"))


@pytest.mark.parametrize("how", ["signal", "file"])
def test_a_run_that_is_asked_to_stop_stops_at_the_end_of_a_rollout(
    tmp_path: Path, how: str
) -> None:
    catcher = SignalCatcher(2, tmp_path / "stop")
    before = signal.getsignal(signal.SIGTERM)
    catcher.on_train_begin()
    try:
        if how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            (tmp_path / "stop").touch()
        control: Any = SimpleNamespace(should_save=False, should_training_stop=False)
        device = SimpleNamespace(device=torch.device("cpu"))
        for step, stops in ((1, False), (2, True)):
            catcher.on_step_end(device, SimpleNamespace(global_step=step), control)
            assert (control.should_save, catcher.caught) == (stops, stops)
    finally:
        catcher.on_train_end()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stopped_run_leaves_a_checkpoint_and_pages(
    taught: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "stop").touch()
    trackers = ("log.trackers=[tensorboard]", "log.pictures=3", "evaluation.every=1")
    ending = train(taught, data, tmp_path, *WRITING, *trackers, "optimiser.max_steps=5")
    assert (ending.step, ending.caught) == (1, True)
    assert (tmp_path / "checkpoint-1" / "sha256.json").is_file()
    page = (tmp_path / "completions" / "step-000001.html").read_text(encoding="utf-8")
    assert "Validation, greedy" in page
    assert "Training, sampled" in page
    assert page.count("data:image/jpeg;base64,") == 2 + 3
    assert "bbox_iou" in page
    assert not {"http:", "https:", "<script"} & set(page.split())
    with Image.open(tmp_path / "completions" / "step-000001.png") as sheet:
        assert sheet.size == (4 * 384, 2 * 384)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    groups = lines_of(tmp_path / "evaluations.jsonl")[0]["supercategories"]
    assert set(groups) == {"abdomen anatomies"}


def test_a_full_disk_is_told_before_and_while(
    taught: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medreasoner_trainer.training import run as module

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
        with pytest.raises(ExportError, match="checkpoints may take"):
            train(taught, data, tmp_path / "before")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    run = prepared(taught, data, tmp_path / "while", "optimiser.max_steps=1", *WRITING)
    make = Run.trainer

    def with_full_disk(self: Run) -> Any:
        trainer = make(self)
        trainer._save_checkpoint = full
        return trainer

    monkeypatch.setattr(Run, "trainer", with_full_disk)
    with pytest.raises(ExportError, match="is full; free space and go on with --resume auto"):
        run.train(resume=False)


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    history = History(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        history.add(step, {"loss": 0.5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in history.lines()] == [1, 2, 3]
    history.cut(2)
    assert [line["step"] for line in history.lines()] == [1, 2]
