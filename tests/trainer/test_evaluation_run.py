"""Whole runs through the command line: killed, gone on with, refused, and on Ray."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medreasoner_trainer import cli
from medreasoner_trainer.evaluation.cluster import RayWorker, outcome_from
from medreasoner_trainer.evaluation.folder import RunFolder
from napari_medreasoner.core.errors import MissingEngineError
from tests.fakes import install
from tests.trainer.small_data import write_small_data

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_data(tmp_path_factory.mktemp("run") / "data")


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    """A run that nothing disturbed."""
    out = data.parent / "finished"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run(monkeypatch, data, out, crm="prior") == 0
    return out


def command(data: Path, out: Path, *options: str) -> list[str]:
    program = [sys.executable, "-m", "medreasoner_trainer.cli", "eval"]
    return [*program, "--data", str(data), "--out", str(out), *options]


def environment(*folders: Path) -> dict[str, str]:
    paths = [*map(str, folders), str(ROOT), str(ROOT / "trainer")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def run(
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
    out: Path,
    *options: str,
    crm: str = "true-prompts",
) -> int:
    """Evaluate in this process; return the exit code."""
    arguments = command(data, out, "--crm", crm, *options)[2:]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def lines_of(out: Path) -> list[bytes]:
    path = out / "cases.jsonl"
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def timeless(out: Path) -> list[dict[str, Any]]:
    """The cases without what differs from run to run."""
    return [case.model_dump(exclude={"seconds"}) for case in RunFolder(out).cases()]


def test_a_killed_run_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, data: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(data, out, "--crm", "prior"), env=environment(), stdout=subprocess.DEVNULL
    )
    while len(lines_of(out)) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [line for line in lines_of(out) if line.endswith(b"\n")]
    assert 3 <= len(before) < 12
    assert run(monkeypatch, data, out, crm="prior") == 0
    assert lines_of(out)[: len(before)] == before, "finished cases are not scored again"
    assert timeless(out) == timeless(finished)
    summed_up, expected = (
        json.loads((folder / "summary.json").read_text())["overall"] for folder in (out, finished)
    )
    assert summed_up["measures"] == expected["measures"]


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    program = shlex.join(command(data, tmp_path, "--crm", "true-prompts"))
    done = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -f 8; exec {program}"],
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("A case could not be written (")
    assert done.stderr.count("\n") == 1
    before = [line for line in lines_of(tmp_path) if line.endswith(b"\n")]
    assert 0 < len(before) < 12
    assert run(monkeypatch, data, tmp_path) == 0
    assert lines_of(tmp_path)[: len(before)] == before
    assert len(lines_of(tmp_path)) == 12


def test_a_torn_line_is_scored_again(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    assert run(monkeypatch, data, tmp_path) == 0
    whole = lines_of(tmp_path)
    (tmp_path / "cases.jsonl").write_bytes(b"".join(whole[:5]) + whole[5][:40])
    assert run(monkeypatch, data, tmp_path) == 0
    assert lines_of(tmp_path)[:5] == whole[:5]
    assert len(lines_of(tmp_path)) == len(whole) == 12


def test_a_damaged_line_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
) -> None:
    assert run(monkeypatch, data, tmp_path, "--limit", "3") == 0
    first, _, third = lines_of(tmp_path)
    (tmp_path / "cases.jsonl").write_bytes(first + b"{}\n" + third)
    assert run(monkeypatch, data, tmp_path, "--limit", "3") == 2
    assert "Line 2 of" in capsys.readouterr().err
    (tmp_path / "cases.jsonl").write_bytes(first + first + third)
    assert run(monkeypatch, data, tmp_path, "--limit", "3") == 2
    assert "repeats" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--prompt-mode", "box"], "prompt_mode"), (["--seed", "7"], "seed"), ([], "limit")],
)
def test_another_configuration_is_refused(
    options: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
) -> None:
    assert run(monkeypatch, data, tmp_path, "--limit", "2") == 0
    before = lines_of(tmp_path)
    capsys.readouterr()
    limit = ["--limit", "2"] if options else []
    assert run(monkeypatch, data, tmp_path, *limit, *options) == 2
    told = capsys.readouterr().err
    assert f"a run with {named} = " in told
    assert told.count("\n") == 1
    assert lines_of(tmp_path) == before


def test_two_processes_do_not_write_one_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
) -> None:
    with (tmp_path / "cases.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(monkeypatch, data, tmp_path) == 2
    assert "Another process" in capsys.readouterr().err


def test_a_limit_draws_by_seed(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    drawn = []
    for number, seed in enumerate(("0", "0", "1")):
        out = tmp_path / str(number)
        assert run(monkeypatch, data, out, "--limit", "5", "--seed", seed) == 0
        drawn.append([case.id for case in RunFolder(out).cases()])
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(ids) for ids in drawn] == [5, 5, 5]


def test_bad_records_are_told_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = write_small_data(tmp_path / "data")
    text = (data / "records.jsonl").read_text().splitlines(keepends=True)
    (data / "records.jsonl").write_text("".join([text[0], "{}\n", *text[1:], text[0]]))
    image = data / json.loads(text[3])["image"]
    image.write_bytes(image.read_bytes()[:2000])
    mask = data / json.loads(text[5])["mask"]
    with Image.open(mask) as picture:
        Image.new("1", picture.size).save(mask)
    assert run(monkeypatch, data, tmp_path / "out") == 0
    told = capsys.readouterr()
    assert "Left out: records.jsonl, line 2: " in told.err
    assert f"Left out: records.jsonl, line 5: {image.name} cannot be read" in told.err
    assert "10 of 12 records scored" in told.out
    assert "4 records left out" in told.out
    problems = RunFolder(tmp_path / "out").problems()
    assert {problem.file for problem in problems} == {"records.jsonl"}
    assert [problem.line for problem in problems] == [2, 14, 5, 7]
    assert "is that of records.jsonl, line 1, too" in problems[1].reason
    assert f"{mask.name} is empty" in problems[3].reason
    assert run(monkeypatch, data, tmp_path / "strict", "--strict") == 2
    (data / "records.jsonl").write_text("".join(text))
    assert run(monkeypatch, data, tmp_path / "strict", "--strict") == 2
    assert f"Record 4 of records.jsonl cannot be used ({image.name}" in capsys.readouterr().err
    assert len(lines_of(tmp_path / "strict")) == 3, "up to the bad one"


def test_an_unknown_engine_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
) -> None:
    assert run(monkeypatch, data, tmp_path / "out", "--asm", "/models/none") == 2
    assert 'There is no segmenter named "/models/none"' in capsys.readouterr().err


def test_the_traceback_of_an_engine_goes_to_a_file(data: Path, tmp_path: Path) -> None:
    fakes = tmp_path / "fakes"
    install(fakes)
    options = ["--asm", "broken", "--crm", "true-prompts", "--limit", "2"]
    done = subprocess.run(
        command(data, tmp_path / "out", *options),
        capture_output=True,
        text=True,
        env=environment(fakes),
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "the segmenter on 2" in done.stdout
    assert "RuntimeError: no weights" in (tmp_path / "out" / "engines.log").read_text()


def test_what_stops_a_ray_worker_is_told(data: Path, finished: Path) -> None:
    config = RunFolder(finished).config()
    ids = [case.id for case in RunFolder(finished).cases()][:2]
    results = RayWorker(config.model_dump_json())({"id": ids})["result"]
    assert [getattr(outcome_from(result), "id", None) for result in results] == ids
    unknown = config.model_copy(update={"asm": "none"}).model_dump_json()
    (stopped,) = RayWorker(unknown)({"id": ids})["result"]
    with pytest.raises(MissingEngineError, match='no segmenter named "none"'):
        outcome_from(stopped)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_two_ray_workers_give_the_same_cases(data: Path, finished: Path, tmp_path: Path) -> None:
    here = {name: text for name, text in environment().items() if name != "RAY_ADDRESS"}
    subprocess.run(
        command(data, tmp_path, "--crm", "prior", "--ray", "--workers", "2"),
        check=True,
        capture_output=True,
        env=here,
    )
    assert timeless(tmp_path) == timeless(finished)
