import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_medreasoner.cli.findings import FILES
from napari_medreasoner.core.grounding import parse_answer
from napari_medreasoner.core.metrics import dice
from napari_medreasoner.imaging import read_image
from napari_medreasoner.imaging.samples import SampleCase, sample_cases, sample_folder

CASES = {case.id: case for case in sample_cases()}


def medreasoner(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "napari_medreasoner.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def complaint(done: subprocess.CompletedProcess[str], exit_code: int) -> str:
    """The one sentence on stderr; no traceback, nothing else."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def ask(case: SampleCase, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    slices = [] if case.slice_index is None else ["--slice", str(case.slice_index)]
    image = sample_folder() / case.image
    words = ["ask", image, case.question, "-o", output, "--modality", case.modality]
    return medreasoner(*words, *slices, *more)


def test_a_colour_picture_gets_its_four_files(tmp_path: Path) -> None:
    case = CASES["histology-gland"]
    done = ask(case, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(FILES)
    trace = (tmp_path / "out" / "trace.txt").read_text()
    assert trace.strip()
    assert trace.strip() in done.stdout
    answer = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert answer["question"] == case.question
    assert answer["engines"] == {"crm": "small-qwen", "asm": "unet"}
    assert str(sample_folder()) not in json.dumps(answer)
    mask = read_image(tmp_path / "out" / "mask.nii.gz").array > 0
    assert dice(mask, case.load_mask().array > 0) > 0.7


def test_the_baselines_can_be_named(tmp_path: Path) -> None:
    case = CASES["fundus-optic-disc"]
    done = ask(case, tmp_path / "out", "--crm", "prior", "--asm", "classical")
    assert done.returncode == 0, done.stderr
    answer = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert answer["engines"] == {"crm": "prior", "asm": "classical"}
    mask = read_image(tmp_path / "out" / "mask.nii.gz").array > 0
    assert dice(mask, case.load_mask().array > 0) > 0.7
    with Image.open(tmp_path / "out" / "overlay.png") as picture:
        assert picture.size == case.load().array.shape[1::-1]


def test_a_volume_gets_a_mask_on_its_own_grid(tmp_path: Path) -> None:
    case = CASES["ct-left-kidney"]
    for name, more in (("slice", ()), ("grown", ("--grow",))):
        assert ask(case, tmp_path / name, "--crm", "prior", *more).returncode == 0
    source = nib.load(sample_folder() / case.image)
    truth = nib.load(sample_folder() / case.mask)
    for name, slices in (("slice", 1), ("grown", 3)):
        mask = nib.load(tmp_path / name / "mask.nii.gz")
        assert mask.shape == source.shape
        assert np.abs(mask.affine - source.affine).max() < 1e-3
        filled = np.flatnonzero((np.asanyarray(mask.dataobj) > 0).any(axis=(0, 1)))
        assert len(filled) >= slices
        hits = np.asanyarray(mask.dataobj)[np.asanyarray(truth.dataobj) > 0]
        assert hits.mean() > (0.4 if name == "grown" else 0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["none.png", "where?"], "no file"),
        (["{notes}", "where?"], "kind that is not read"),
        (["{broken}", "where?"], "cannot be read"),
        (["{picture}", "   "], "question is empty"),
        (["{picture}", "where?", "--slice", "3"], "two-dimensional"),
        (["{volume}", "where?", "--slice", "999"], "does not exist"),
        (["{picture}", "where?", "--crm", "gpt-9"], 'no reasoner named "gpt-9"'),
        (["{picture}", "where?", "--asm", "none"], 'no segmenter named "none"'),
        (["{picture}", "where?", "--template", "none.toml"], "template none.toml cannot be read"),
        (["{picture}", "where?", "--modality", "Photo"], 'no modality "Photo"'),
        (["{nothing}", "where?"], "no finite value"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    tmp_path: Path, words: list[str], reason: str
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    nan = nib.Nifti1Image(np.full((4, 4, 1), np.nan, np.float32), np.eye(4))
    nib.save(nan, tmp_path / "nan.nii")
    places = {
        "picture": sample_folder() / "histology-gland.png",
        "volume": sample_folder() / "ct-left-kidney.nii.gz",
        "notes": tmp_path / "notes.txt",
        "broken": tmp_path / "broken.png",
        "nothing": tmp_path / "nan.nii",
    }
    done = medreasoner("ask", *(word.format(**places) for word in words), "-o", tmp_path / "out")
    assert reason in complaint(done, 2)
    assert not (tmp_path / "out").exists()


def test_missing_arguments_are_a_usage_error() -> None:
    assert medreasoner("ask").returncode == 2
    assert medreasoner("nonsense").returncode == 2


def test_a_refusal_is_a_failure_in_plain_words(tmp_path: Path) -> None:
    image = sample_folder() / "ct-liver.png"
    done = medreasoner("ask", image, "What will the weather be tomorrow?", "-o", tmp_path / "out")
    complaint(done, 1)


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    image = sample_folder() / "ct-liver.png"
    question = CASES["ct-liver"].question
    done = medreasoner("ask", image, question, "--modality", "CT", "-o", tmp_path / "file" / "out")
    assert "cannot be" in complaint(done, 1)


def test_a_tiny_and_a_flat_image_do_not_crash(tmp_path: Path) -> None:
    for name, array in (
        ("tiny", np.zeros((1, 1), np.uint8)),
        ("flat", np.full((80, 60), 7, np.uint8)),
    ):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        done = medreasoner("ask", tmp_path / f"{name}.png", "Where is the liver?", "-o", tmp_path)
        assert done.returncode in {0, 1}
        if done.returncode == 1:
            complaint(done, 1)


def test_the_saved_answer_is_inside_the_image(tmp_path: Path) -> None:
    case = CASES["histology-gland"]
    assert ask(case, tmp_path).returncode == 0
    fields = json.loads((tmp_path / "answer.json").read_text())
    body = {"bbox": fields["bbox"]} | {
        f"points_{n}": point for n, point in enumerate(fields["points"], 1)
    }
    height, width = case.load().array.shape[:2]
    answer = parse_answer(f"<answer>{json.dumps(body)}</answer>").on_image(width, height)
    assert list(answer.box.corners) == fields["bbox"]
