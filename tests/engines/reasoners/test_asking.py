"""A model in a folder, asked from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from napari_medreasoner.core.prompts import BUILT_IN
from tests.checkpoints.teaching import Lesson, teach
from tests.checkpoints.vlm import qwen2_5_vl

QUESTION = "Where is the round thing?"


def test_a_question_to_a_model_in_a_folder(tmp_path: Path) -> None:
    """The prompt names 224 x 140 pixels, the answer is in them, the result in 230 x 150."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 255, (150, 230, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    (message,) = BUILT_IN["Reasoning"].render(QUESTION, 224, 140)
    answer = {"bbox": [56, 28, 112, 84], "points_1": [80, 50], "points_2": [90, 60]}
    text = f"<think>Round, é漢.</think><answer>{json.dumps(answer)}</answer>"
    folder = qwen2_5_vl(tmp_path / "model")
    teach(folder, [Lesson(picture, message.content, text)])

    command = [sys.executable, "-m", "napari_medreasoner.cli", "ask", "picture.png", QUESTION]
    ran = subprocess.run(
        [*command, "--crm", "model", "--output", "out"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] == "Round, é漢."
    assert "Traceback" not in ran.stderr
    found = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert found["bbox"] == [58, 30, 115, 90]
    assert found["points"] == [[82, 54], [92, 64]]
