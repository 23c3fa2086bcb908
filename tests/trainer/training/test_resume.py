"""A run that was killed goes on as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medreasoner_trainer.training.checkpoints import checkpoints_in, fault_of, last_whole
from napari_medreasoner.core.errors import SettingsError
from tests.trainer.training.runs import SMALL, WRITING, lines_of, same, train

STEPS = (*WRITING, "optimiser.max_steps=10", "checkpoints.every=5", "evaluation.every=5")
LAST = "checkpoint-10"


@pytest.fixture(scope="module")
def straight(taught: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps without a break."""
    out = tmp_path_factory.mktemp("straight")
    train(taught, data, out, *STEPS)
    rewards = [line["reward"] for line in lines_of(out / "log.jsonl") if "reward" in line]
    assert len(set(rewards)) > 5  # else there is nothing that could differ
    return out


@pytest.fixture(scope="module")
def killed(taught: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A process killed after its fifth step."""
    out = tmp_path_factory.mktemp("killed") / "run"
    settings = [f"model.path={taught}", f"data.path={data}", *SMALL, *STEPS]
    command = [sys.executable, "-m", "medreasoner_trainer.cli", "grpo", "--config", "tiny-cpu"]
    command += ["--out", str(out), *(part for each in settings for part in ("--set", each))]
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        while not (out / "checkpoint-5" / "sha256.json").is_file():
            assert child.poll() is None, child.stderr and child.stderr.read()
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert not (out / LAST / "sha256.json").is_file()
    return out


def copy_of(run: Path, out: Path) -> Path:
    shutil.copytree(run, out)
    return out


def test_five_steps_a_kill_and_five_more_equal_ten(
    taught: Path, data: Path, straight: Path, killed: Path, tmp_path: Path
) -> None:
    out = copy_of(killed, tmp_path / "run")
    train(taught, data, out, *STEPS, resume=True)
    assert same(out / LAST, straight / LAST)
    ours, theirs = (lines_of(run / "log.jsonl") for run in (out, straight))
    assert [line.get("loss") for line in ours] == [line.get("loss") for line in theirs]
    assert lines_of(out / "evaluations.jsonl") == lines_of(straight / "evaluations.jsonl")


def test_without_the_random_state_they_do_not(
    taught: Path, data: Path, straight: Path, killed: Path, tmp_path: Path
) -> None:
    """The control: the comparison would notice."""
    out = copy_of(killed, tmp_path / "run")
    (out / "checkpoint-5" / "rng_state.pth").unlink()
    (out / "checkpoint-5" / "sha256.json").write_text("{}")
    train(taught, data, out, *STEPS, resume=True)
    assert not same(out / LAST, straight / LAST)


@pytest.mark.parametrize("damage", ["cut", "unfinished"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    straight: Path, tmp_path: Path, damage: str
) -> None:
    out = copy_of(straight, tmp_path / "run")
    assert last_whole(out)[0] == out / LAST
    if damage == "cut":
        weights = out / LAST / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        (out / LAST / "sha256.json").unlink()
    whole, faults = last_whole(out)
    assert whole == out / "checkpoint-5"
    assert list(faults) == [out / LAST]
    assert fault_of(out / LAST) == {
        "cut": "model.safetensors is damaged",
        "unfinished": "it was not finished",
    }.get(damage)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    taught: Path,
    data: Path,
    straight: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = copy_of(straight, tmp_path / "run")
    (out / LAST / "sha256.json").unlink()
    train(taught, data, out, *STEPS, resume=True)
    assert same(out / LAST, straight / LAST)
    assert "checkpoint-10 is not used, as it was not finished" in capsys.readouterr().err
    assert (out / f"broken-{LAST}").is_dir()


def test_a_run_is_not_overwritten_nor_mixed_with_another(
    taught: Path, data: Path, straight: Path
) -> None:
    with pytest.raises(SettingsError, match="holds a run; go on with it"):
        train(taught, data, straight, *STEPS)
    with pytest.raises(SettingsError, match='section "loss" differs'):
        train(taught, data, straight, *STEPS, "loss.beta=0.5", resume=True)


def test_the_last_checkpoints_and_the_best_stay(straight: Path) -> None:
    assert {5, 10} <= set(checkpoints_in(straight))
