"""The small model is a Qwen2.5-VL to everybody who loads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from medreasoner_trainer.cli import app
from medreasoner_trainer.training.tiny import make_tiny, parameter_count
from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.grounding import format_answer


def test_it_is_loaded_by_its_folder_and_answers(tiny: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny)
    model = AutoModelForImageTextToText.from_pretrained(tiny)
    assert (type(model).__name__, model.config.model_type) == (
        "Qwen2_5_VLForConditionalGeneration",
        "qwen2_5_vl",
    )
    content = [
        {"type": "image", "image": Image.new("RGB", (84, 56))},
        {"type": "text", "text": "Where?"},
    ]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    pads = (inputs["input_ids"] == model.config.image_token_id).sum()
    assert pads == 3 * 2
    made = [model.generate(**inputs, max_new_tokens=4, do_sample=False) for _ in range(2)]
    assert torch.equal(*made)


def test_a_coordinate_is_one_token_and_text_comes_back(tiny: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(tiny).tokenizer
    box, points = Box.from_corners(0, 12, 839, 1023), (Point(x=7, y=100), Point(x=5, y=66))
    text = format_answer("Déjà vu, 3 µm wide.", box, points)
    tokens = tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokens) == text
    pieces = [tokenizer.decode([token]) for token in tokens]
    assert {"12", "839", "1023", "100", "66"} <= set(pieces)
    assert tokenizer.padding_side == "left"


@pytest.mark.parametrize("wanted", [1_000_000, 3_000_000, 30_000_000])
def test_its_size_is_near_what_was_asked_for(tmp_path: Path, wanted: int) -> None:
    assert make_tiny(tmp_path, wanted) == pytest.approx(wanted, rel=0.35)


def test_the_same_seed_gives_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    make_tiny(tmp_path / "same", 300_000, layers=2)
    make_tiny(tmp_path / "other", 300_000, layers=2, seed=1)
    same, other = (tmp_path / name / "model.safetensors" for name in ("same", "other"))
    assert same.read_bytes() == (tiny / "model.safetensors").read_bytes() != other.read_bytes()


def test_the_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["tiny", str(tmp_path), "--parameters", "1M"])
    assert result.exit_code == 0
    assert "parameters." in result.output
    assert (parameter_count("3M"), parameter_count("0.5k")) == (3_000_000, 500)
    with pytest.raises(SettingsError, match="not a number of parameters"):
        parameter_count("big")
