"""Two processes that train one model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.trainer.training.runs import SMALL, WRITING, lines_of

WORKER = """
import hashlib, json, os, sys
from pathlib import Path
from medreasoner_trainer.training.loading import load_config
from medreasoner_trainer.training.run import Run

out, *overrides = sys.argv[1:]
run = Run.prepared(load_config("tiny-cpu", overrides), Path(out))
trainers = []
make = Run.trainer
Run.trainer = lambda self: trainers.append(make(self)) or trainers[0]
ending = run.train(resume=False)
digest = hashlib.sha256()
for weight in trainers[0].model.parameters():
    digest.update(weight.detach().numpy().tobytes())
told = {"step": ending.step, "sha256": digest.hexdigest(), "devices": run.counts.devices}
Path(f"{out}.{os.environ['RANK']}.json").write_text(json.dumps(told))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(*arguments: str) -> str:
    """Start two processes; give what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, f"--master-port={free_port()}", *arguments],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[:6000]
    return done.stdout


def test_two_ranks_end_with_the_same_weights(taught: Path, data: Path, tmp_path: Path) -> None:
    out, worker = tmp_path / "run", tmp_path / "worker.py"
    worker.write_text(WORKER)
    settings = [f"model.path={taught}", f"data.path={data}", *SMALL, *WRITING]
    settings += ["batch.per_device=2", "optimiser.max_steps=2", "loss.beta=0.01"]
    launch(str(worker), str(out), *settings)
    first, second = (json.loads((tmp_path / f"run.{rank}.json").read_text()) for rank in (0, 1))
    assert (first["step"], first["devices"]) == (2, 2)
    assert first["sha256"] == second["sha256"]
    logged = [line for line in lines_of(out / "log.jsonl") if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2]
    assert all(abs(line["loss"]) < 10 for line in logged)
    # A step whose completions all earn the same has no gradient.
    assert any(line["grad_norm"] > 0 for line in logged)
    assert (out / "checkpoint-2" / "rng_state_1.pth").is_file()


def test_a_doctor_lets_two_ranks_meet(tiny: Path, data: Path, tmp_path: Path) -> None:
    told = launch(
        "-m",
        "medreasoner_trainer.cli",
        "doctor",
        "--config=tiny-cpu",
        f"--out={tmp_path}",
        f"--set=model.path={tiny}",
        f"--set=data.path={data}",
    )
    for check in ("data", "model", "disk", "address", "meeting", "all-reduce", "versions"):
        assert f"[rank 0] ok   {check}: " in told
    assert "meeting: 2 processes" in told
    assert "FAIL" not in told
