"""The paper's tables beside our rows: read back as Markdown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medreasoner_trainer import cli
from medreasoner_trainer.evaluation.case import Case
from medreasoner_trainer.evaluation.folder import RunConfig, RunFolder
from medreasoner_trainer.evaluation.statistics import summary_of
from medreasoner_trainer.evaluation.tables import breakdown, published_tables

Rows = dict[str, list[str]]


def made_run(path: Path, crm: str = "prior", data: str = "/data/mini", **fields: object) -> Path:
    """A run of two cases of two super-categories, of which the second is not answered."""
    config = RunConfig(
        version="1",
        crm=crm,
        asm="classical",
        data=data,
        split="test",
        prompt="direct",
        prompt_mode="both",
        limit=None,
        seed=0,
        records=3,
        records_sha256="",
    )
    known = {"question": "?", "modality": "CT", "category": "thing", "seconds": 0.1}
    first = {
        "id": "a",
        "group": "a",
        "supercategory": "Lung",
        "parsed": True,
        "bbox": (0, 0, 5, 5),
        "points": ((1, 1), (2, 2)),
        "iou": 0.5,
        "pdice": 0.25,
        "pdice_released": 0.3,
        "dice_points": 0.4,
        "dice_box": 0.6,
        "dice_both": 0.8,
    }
    second = {"id": "b", "group": "b", "supercategory": "vessel", "fault": "no_answer"}
    with RunFolder(path).opened(config) as writer:
        writer.add(Case.model_validate(known | first | fields))
        writer.add(Case.model_validate(known | second))
    return path


def tables_of(text: str) -> list[tuple[list[str], Rows]]:
    """Headings and rows of the Markdown tables in a text, the rows by their first cell(s)."""
    found: list[tuple[list[str], Rows]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and not lines[number - 1].startswith("|"):
            found.append((cells, {}))
        elif line.startswith("|") and "---" not in line:
            found[-1][1][cells[0]] = cells[1:]
    return found


def test_our_rows_stand_in_the_published_tables(tmp_path: Path) -> None:
    text = published_tables([summary_of(RunFolder(made_run(tmp_path / "run")))])
    tables = tables_of(text)
    assert [len(rows) for _, rows in tables] == [17, 6, 4, 4, 5]
    by_heading = [
        dict(zip(head[1:], rows["**prior x classical**"], strict=True)) for head, rows in tables
    ]
    assert by_heading[0] == dict.fromkeys(by_heading[0], "-") | {
        "IoU": "25.00",
        "pDice": "12.50",
        "Dice": "40.00",
        "Lung": "50.00",
        "Ves.": "0.00",
    }
    assert by_heading[1] == {"IoU": "25.00", "pDice": "12.50", "Dice": "40.00", "# Ref.": "1"}
    assert by_heading[2] == {"w/ Points": "20.00", "w/ BBox": "30.00", "BBox & Points": "40.00"}
    assert by_heading[3] == {"Reason": "no", "IoU": "25.00", "pDice": "12.50", "# Ref.": "1"}
    assert by_heading[4]["Reason"] == "no"


def test_the_published_figures_are_the_papers(tmp_path: Path) -> None:
    tables = tables_of(published_tables([]))
    best = "32.42 26.55 37.78 30.27 32.81 51.50 34.72 11.66 50.75 29.91 33.58 37.19 30.48"
    assert tables[0][1]["MedReasoner-7B"] == best.split()
    assert tables[0][1]["VLMR1-REC-3B"][:3] == ["13.96", "-", "22.19"]
    assert tables[1][1]["Lingshu w/ RL(Hard)"] == ["31.69", "24.36", "33.51", "0"]
    assert tables[2][1]["MedSAM"] == ["5.67", "28.39", "19.00"]
    assert tables[3][1]["MedReasoner-7B"] == ["yes", "32.42", "26.55", "0"]
    assert tables[4][1]["SFT"] == ["yes", "6.32", "1.56", "13.45", "0"]


def test_unlike_data_are_said_to_be(tmp_path: Path) -> None:
    mini = summary_of(RunFolder(made_run(tmp_path / "mini")))
    assert published_tables([mini]).count("not comparable") == 5
    assert "rows in bold of mini (test, 3)" in published_tables([mini])
    full = summary_of(RunFolder(made_run(tmp_path / "full", data="/data/U-MRG-14K")))
    assert published_tables([full]).count("not comparable") == 1, "Table 6 is of U-MRG-6K"


def test_a_model_that_never_gives_points_has_a_dash(tmp_path: Path) -> None:
    fields = {"points": None, "pdice": 0, "pdice_released": 0, "dice_points": 0}
    summary = summary_of(RunFolder(made_run(tmp_path / "run", **fields)))
    _, rows = tables_of(published_tables([summary]))[0]
    assert rows["**prior x classical**"][:3] == ["25.00", "-", "40.00"]
    head, rows = tables_of(breakdown([summary]))[0]
    assert rows["all"][head.index("pDice") - 1] == "-"
    assert rows["all"][head.index("IoU") - 1] == "25.0 [0.0, 50.0]"


def test_the_command_prints_and_compares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = made_run(tmp_path / "one"), made_run(tmp_path / "two", iou=0.7, crm="better")

    def tables(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["medreasoner-train", "tables", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    assert tables(first, second, "--paired") == 0
    printed = capsys.readouterr().out
    assert "2 of 3 records scored" in printed
    head, rows = tables_of(printed)[-1]
    assert rows["IoU"][head.index("Difference") - 1] == "10.0 [0.0, 20.0]"
    assert rows["IoU"][1:3] == ["1", "0"]
    assert tables(first, made_run(tmp_path / "true", crm="true-prompts"), "--paired") == 0
    _, rows = tables_of(capsys.readouterr().out)[-1]
    assert list(rows) == ["Dice", "Dice points", "Dice box", "Dice both"]
    assert tables(first, "--paired") == 2
    assert "name two folders" in capsys.readouterr().err
    assert tables(tmp_path) == 2
    assert "holds no evaluation" in capsys.readouterr().err
