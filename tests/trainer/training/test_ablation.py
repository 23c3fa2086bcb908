"""The ablation: arms through the real trainer, going on where it was, and intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.ablation import main
from benchmarks.ablation_data import KEPT, Sets, blurred, is_known
from benchmarks.ablation_results import MEASURES, Judged, estimate, publish
from medreasoner_trainer.data import open_data
from medreasoner_trainer.training.loading import load_config
from tests.trainer.training.runs import lines_of, write_data

SMALL = [
    "--updates=2",
    "--cold-updates=2",
    "--parameters=300000",
    "--layers=2",
    "--seeds",
    "0",
    "--arms",
    "none",
    "sft",
    "soft",
]


def write_mini(shared: Path) -> Path:
    """The crops of `write_data` several times, known and unknown targets in all three splits."""
    folder = write_data(shared / "data" / "umrg_mini")
    lines = []
    for line in lines_of(folder / "records.jsonl"):
        known, unknown = "lung", "histology structure"
        own = line["split"]
        copies = (("test", known), ("test", unknown), (own, known), (own, known), (own, unknown))
        for place, (split, kind) in enumerate(copies):
            named = {"id": f"{line['id']}-{place}", "group": f"{split}-{line['group']}"}
            lines.append(json.dumps(line | named | {"split": split, "supercategory": kind}) + "\n")
    (folder / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    write_mini(folder)
    return folder


def answers(arm: str, shift: float, seed: int = 0, records: int = 60) -> Judged:
    rng = np.random.default_rng(3)
    found = [
        {"id": str(place), "group": str(place // 2), "side": "ID" if place % 4 < 2 else "OOD"}
        | dict.fromkeys(MEASURES, float(rng.beta(2, 3)) + shift)
        for place in range(records)
    ]
    return Judged(arm, seed, "val", {}, found)


def test_it_runs_all_parts_and_goes_on_where_it_was(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDREASONER_SHARED", str(shared))
    out = tmp_path / "out"
    main([*SMALL, f"--out={out}"])
    lines = lines_of(out / "results.jsonl")
    assert len(lines) == 2 * 2 * 3  # splits, sides, arms
    assert {line["arm"] for line in lines if "flat" in line} == {"soft"}
    table = (out / "table.md").read_text(encoding="utf-8")
    assert all(f"| {row} |" in table for row in ("none", "sft", "soft", "soft - sft"))
    assert table.index("## val") < table.index("## test")
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")

    before = (out / "results.jsonl").read_bytes()
    for kept in ("val", "test"):
        (out / "soft-0" / f"{kept}.json").unlink()
    (out / "soft-0" / "checkpoint-2" / "sha256.json").unlink()  # cut off while it was written
    capsys.readouterr()
    main([*SMALL, f"--out={out}"])
    printed = capsys.readouterr()
    assert [line for line in printed.out.splitlines() if ", seed " in line] == [
        "soft, seed 0, val",
        "soft, seed 0, test",
    ]
    assert "step 2/2" in printed.err
    assert "step 1/2" not in printed.err
    assert (out / "results.jsonl").read_bytes() == before

    with pytest.raises(SystemExit, match="another plan"):
        main([f"--out={out}", "--updates=3"])


def test_what_is_unknown_is_neither_in_the_cold_start_nor_in_training(shared: Path) -> None:
    config = load_config("tiny-cpu", [f"data.path={shared / 'data' / 'umrg_mini'}"])
    sets = Sets.of(config)
    for examples in (sets.cold, sets.train):
        assert {record.split for record in examples.records} == {"train"}
        assert {record.supercategory for record in examples.records} <= KEPT
    for split, examples in sets.judged.items():
        assert {record.split for record in examples.records} == {split}
        assert {is_known(record) for record in examples.records} == {True, False}
    assert [r.id for r in sets.cold.records] == [r.id for r in sets.train.records]
    assert all(r.question for r in sets.train.records)


def test_blurred_coordinates_are_wrong_by_a_quarter_of_the_box(shared: Path) -> None:
    record = open_data(shared / "data" / "umrg_mini").records[0]
    rng = np.random.default_rng(0)
    found = [blurred(record, rng) for _ in range(400)]
    assert all(0 <= one.box.x1 < one.box.x2 <= record.image_size[0] for one in found)
    spread = np.std([one.points[0].x for one in found]) / record.box.width
    assert 0.1 < spread < 0.26  # narrower than a quarter, as the picture's edge holds some


def test_an_interval_is_that_of_patients_and_of_means_over_seeds() -> None:
    runs = [answers("soft", 0.0), answers("soft", 0.2, seed=1)]
    found = estimate(runs, "ID")[0]
    by_patient = runs[0].values("ID")[:, 0].reshape(-1, 2).mean(axis=1) + 0.1
    oracle = stats.bootstrap((by_patient,), np.mean, method="percentile", rng=3).confidence_interval
    assert found.mean == pytest.approx(by_patient.mean())
    assert found.interval == pytest.approx(oracle, abs=0.012)


def test_a_difference_is_paired_by_record() -> None:
    gap = estimate([answers("soft", 0.3)], "OOD", minus=[answers("none", 0.1)])[0]
    assert gap.interval == pytest.approx((0.2, 0.2))


def test_only_seeds_that_all_arms_have_are_compared(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    one = [answers(arm, 0.0) for arm in ("none", "sft", "soft")]
    publish([*one, answers("sft", 5.0, seed=1)], tmp_path)
    assert "seeds (1)" in table.read_text(encoding="utf-8")
    assert len(lines_of(tmp_path / "results.jsonl")) == 2 * 4
    publish([*one, answers("sft", 0.1, seed=1), answers("soft", 0.4, seed=1)], tmp_path)
    assert "seeds (2)" in table.read_text(encoding="utf-8")
    assert "| soft - sft | +0.150 [+0.150, +0.150] (+0.000 to +0.300) |" in table.read_text("utf-8")
    assert "| soft - none | +0.200 [+0.200, +0.200] (+0.000 to +0.400) |" in table.read_text(
        "utf-8"
    )


def test_without_data_it_says_why_it_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEDREASONER_SHARED", raising=False)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert not ended.value.code
    assert "MEDREASONER_SHARED" in capsys.readouterr().out
