"""Batch scripts, and what a doctor finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from medreasoner_trainer.training.doctor import Machine, examine
from medreasoner_trainer.training.loading import load_config, recipe_folder
from medreasoner_trainer.training.sbatch import Job, batch_script, check_script
from napari_medreasoner.core.errors import BackendError, SettingsError

ACCELERATE = sorted((recipe_folder() / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path: Path) -> None:
    read = load_config_from_file(str(path))
    assert read.mixed_precision == "bf16"
    assert {file.stem for file in ACCELERATE} == {"single", "multi", "zero2", "zero3", "fsdp2"}


def test_two_nodes_that_train_and_generate(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    command = ["slurm", str(script), "--config", "paper-8gpu", "--run", "/scratch/my run"]
    command += ["--nodes", "2", "--gpus", "4", "--partition", "gpu", "--set", "seed=3"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    text = script.read_text()
    for part in (
        "#SBATCH --nodes=2",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --partition=gpu",
        "run='/scratch/my run'",
        "--num_machines 2 --num_processes 8",
        "configs/accelerate/zero3.yaml",
        "settings=(--set seed=3 )",
        "launch doctor --config paper-8gpu",
        "--resume auto",
    ):
        assert part in text
    assert "vllm-serve" not in text
    assert "--account" not in text


def test_the_launcher_leaves_our_options_alone() -> None:
    text = batch_script(Job("grpo", "soft", "run", ("seed=3",)), load_config("soft"))
    assert "accelerate launch --config_file" in text
    ours = ["grpo", "--config", "soft", "--out", "run", "--resume", "auto", "--set", "seed=3"]
    parsed = launch_command_parser().parse_args(["-m", "medreasoner_trainer.cli", *ours])
    assert parsed.training_script_args == ours
    assert parsed.config_file is None


def test_a_server_takes_the_last_node() -> None:
    config = load_config("multinode")
    text = batch_script(Job("grpo", "multinode", "run", layout="server", nodes=3), config)
    assert "--num_machines 2 --num_processes 16" in text
    assert 'server="${nodes[2]}"' in text
    assert "trl vllm-serve --model lingshu-medical-mllm/Lingshu-7B" in text
    assert "rollout.vllm.host=$server" in text


def test_what_does_not_fit_is_refused() -> None:
    config = load_config("multinode")
    with pytest.raises(SettingsError, match="use --layout server"):
        batch_script(Job("grpo", "multinode", "run"), config)
    with pytest.raises(SettingsError, match="ask for 2 nodes or more"):
        batch_script(Job("grpo", "multinode", "run", layout="server", nodes=1), config)
    with pytest.raises(SettingsError, match=r"rollout\.vllm\.mode server"):
        batch_script(Job("grpo", "soft", "run", layout="server", nodes=2), load_config("soft"))
    with pytest.raises(SettingsError, match="do not divide"):
        batch_script(Job("grpo", "soft", "run", nodes=3), load_config("soft"))
    with pytest.raises(SettingsError, match="not valid"):
        check_script("if true; then")


def test_a_doctor_tells_what_is_missing(tiny: Path, data: Path, tmp_path: Path) -> None:
    server = "{mode: server, port: 9, timeout: 0.1}"
    overrides = [f"model.path={data}", f"data.path={tmp_path}", f"rollout.vllm={server}"]
    config = load_config("tiny-cpu", overrides)
    found = {f.check: f for f in examine(config, tmp_path, Machine(0, 1, "127.0.0.1", 1), 1)}
    assert not any(found[check].well for check in ("data", "model", "vllm"))
    assert "holds no data set" in found["data"].detail
    assert "holds no weights" in found["model"].detail
    assert "does not answer after 0.1 s" in found["vllm"].detail
    lost = Machine(1, 2, "no.such.host.invalid", 1)
    assert not {f.check: f for f in examine(config, tmp_path, lost, 1)}["address"].well


def test_its_command_fails_when_something_is_wrong(tiny: Path, data: Path, tmp_path: Path) -> None:
    command = ["doctor", "--config", "tiny-cpu", "--out", str(tmp_path)]
    command += ["--set", f"data.path={data}", "--set"]
    well = CliRunner().invoke(app, [*command, f"model.path={tiny}"])
    assert well.exit_code == 0, well.output
    assert "[rank 0] ok   model" in well.output
    ill = CliRunner().invoke(app, [*command, f"model.path={data}"])
    assert isinstance(ill.exception, BackendError)
    assert "FAIL model" in ill.output
