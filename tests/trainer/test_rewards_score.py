"""`medreasoner-train score`, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from medreasoner_trainer import cli

ANSWER = '{"bbox": [0, 0, 300, 400], "points_1": [60, 80], "points_2": [240, 320]}'
TRUTH = {"bbox_2d": [0, 0, 300, 400], "point_2d": [[60, 80], [240, 320]]}
GOOD = {"completion": f"<think>rim</think><answer>{ANSWER}</answer>", "ground_truth": TRUTH}
NAMES = [
    "line",
    "format_think",
    "format_seg",
    "bbox_iou",
    "points_dice",
    "bbox_align",
    "bbox_scale",
    "points_align",
    "points_angle",
    "bbox_position_valid",
    "bbox_area_valid",
    "points_position_valid",
    "points_spread_valid",
    "score",
]
BAD = [
    ("nonsense", "Invalid JSON"),
    (json.dumps({**GOOD, "completion": 3}), "completion"),
    (json.dumps({"completion": ""}), "ground_truth: Field required"),
    (json.dumps({**GOOD, "image_size": [0, 5]}), "No image has the size"),
    (
        json.dumps({**GOOD, "ground_truth": {**TRUTH, "bbox_2d": [0, 0, 0, 5]}}),
        "has no area",
    ),
    (
        json.dumps({**GOOD, "ground_truth": {**TRUTH, "bbox_2d": [0, 0, True, 5]}}),
        "ground_truth.bbox_2d.2",
    ),
    (
        json.dumps({**GOOD, "ground_truth": {**TRUTH, "bbox_2d": [0, 0, float("nan"), 5]}}),
        "ground_truth.bbox_2d.2",
    ),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write lines to a file, score it with options, return the exit status."""

    def run(lines: list[str], *options: str) -> int:
        file = tmp_path / "in.jsonl"
        file.write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["medreasoner-train", "score", str(file), *options])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return run


def test_every_component_of_each_line(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([json.dumps(GOOD), "", json.dumps({**GOOD, "completion": "no"})]) == 0
    written = capsys.readouterr()
    first, second = map(json.loads, written.out.splitlines())
    assert list(first) == list(second) == NAMES
    assert (first["line"], first["score"], second["line"], second["score"]) == (1, 4, 3, 0)
    assert "2 completions scored, mean score 2.0000" in written.err


def test_presets_and_variants(run, capsys: pytest.CaptureFixture[str]) -> None:
    totals = {}
    for preset in ("soft", "hard", "base", "base-released"):
        for variant in ("paper", "released"):
            assert run([json.dumps(GOOD)], "--preset", preset, "--variant", variant) == 0
            totals[preset, variant] = json.loads(capsys.readouterr().out)["score"]
    # In the paper variant the three distances of a perfect answer earn 1/(1+e^-3) = 0.952574 each.
    assert totals == {
        ("soft", "paper"): pytest.approx(4),
        ("soft", "released"): 4,
        ("hard", "paper"): pytest.approx(5 + 3 * 0.952574, abs=1e-5),
        ("hard", "released"): 8,
        ("base", "paper"): 5,
        ("base", "released"): 5,
        ("base-released", "paper"): 3,
        ("base-released", "released"): 3,
    }


def test_the_file_is_written_whole(run, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert run([json.dumps(GOOD)] * 3, "--output", str(output)) == 0
    assert [json.loads(line)["line"] for line in output.read_text().splitlines()] == [1, 2, 3]
    kept = output.read_bytes()
    assert run([json.dumps(GOOD), "nonsense"], "--output", str(output), "--strict") == 2
    assert output.read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_wrong_line_is_named_and_left_out(
    run, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    assert run([line, json.dumps(GOOD)]) == 0
    written = capsys.readouterr()
    assert [json.loads(text)["line"] for text in written.out.splitlines()] == [2]
    told = written.err.splitlines()[0]
    assert "in.jsonl, line 1: " in told
    assert reason in told
    assert run([json.dumps(GOOD), line], "--strict") == 2
    assert "in.jsonl, line 2: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--preset", "--variant"])
def test_an_unknown_name(run, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert run([json.dumps(GOOD)], option, "best") == 2
    assert "no " + option[2:] + ' "best"; choose one of: ' in capsys.readouterr().err


def test_a_missing_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["medreasoner-train", "score", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
