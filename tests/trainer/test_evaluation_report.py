"""The report page: read by an independent parser, with hostile text in it."""

from __future__ import annotations

import base64
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from medreasoner_trainer import cli
from medreasoner_trainer.evaluation.folder import RunFolder
from tests.trainer.small_data import write_small_data

HOSTILE = '<script src="https://evil.example/x.js">alert(1)</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def medreasoner_train(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["medreasoner-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which one answer was replaced by a hostile one."""
    folder = tmp_path_factory.mktemp("report")
    data = write_small_data(folder / "data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        options = ["--data", data, "--out", folder / "run", "--crm", "true-prompts"]
        assert medreasoner_train(monkeypatch, "eval", *options) == 0
    cases = RunFolder(folder / "run").cases()
    hostile = {"text": HOSTILE, "reason": HOSTILE, "fault": "not_json", "parsed": False}
    cases[0] = cases[0].model_copy(update=hostile)
    lines = "".join(case.model_dump_json() + "\n" for case in cases)
    (folder / "run" / "cases.jsonl").write_text(lines, encoding="utf-8")
    return folder / "run"


def test_the_page_stands_alone_and_runs_nothing(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    assert medreasoner_train(monkeypatch, "report", run, "--picks", "1") == 0
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert page.text.count(HOSTILE) == 2, "shown as it is, once as trace and once as reason"
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "href"]
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == 3 * 2 + 1, "best and worst of three super-categories, one failure"
    for source in sources:
        head, _, data = source.partition(",")
        assert head == "data:image/jpeg;base64"
        assert max(Image.open(BytesIO(base64.b64decode(data))).size) == 384
    assert "http" not in "".join(value for name, value in page.attributes if name != "http-equiv")


def test_the_page_says_what_the_summary_says(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    assert medreasoner_train(monkeypatch, "report", run, "--picks", "0") == 0
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert "12 of 12 records" in page.text
    assert "not_json: 1" in page.text
    assert "there is no IoU and no pDice" in page.text
    assert "100.0" not in page.text, "the truth has no score of its own"
    for name in ("optic disc (4)", "colonic gland (4)", "liver (4)", "eye anatomies", "CT"):
        assert name in page.text


def test_the_data_must_be_those_evaluated(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: Path,
    tmp_path: Path,
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (run.parent / "data").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert medreasoner_train(monkeypatch, "report", run, "--data", moved) == 0
    lines = (moved / "records.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (moved / "records.jsonl").write_text("".join(lines[1:]), encoding="utf-8")
    assert medreasoner_train(monkeypatch, "report", run, "--data", moved) == 2
    assert "not the data set that was evaluated" in capsys.readouterr().err
