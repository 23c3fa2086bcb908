"""Real model classes with tiny weights, through the code that loads the real models."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from napari_medreasoner.core.grounding import parse_answer
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.reasoners.transformers_vlm import TransformersReasoner
from napari_medreasoner.engines.registry import create_reasoner
from tests.checkpoints.vlm import MAKERS
from tests.engines.reasoners.conftest import ANSWERS, asked

SHORT = EngineOptions(device="cpu", max_new_tokens=40)
LONG = EngineOptions(device="cpu", max_new_tokens=200)


def counted(reasoner: Any) -> list[int]:
    """A list that grows by one with every forward pass."""
    passes: list[int] = []
    reasoner._model.register_forward_hook(lambda *_: passes.append(1))
    return passes


def bare(reasoner: Any, question: str) -> str:
    """What `generate` itself writes."""
    inputs = reasoner._inputs([asked(question)])
    made = reasoner._model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    return str(reasoner._processor.tokenizer.decode(made, skip_special_tokens=True))


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # InternVL's processor
@pytest.mark.parametrize("family", MAKERS)
def test_every_family_streams_what_generate_gives(tmp_path: Path, family: str) -> None:
    folder = MAKERS[family](tmp_path / family)
    reasoner = create_reasoner(str(folder), SHORT)
    assert isinstance(reasoner, TransformersReasoner)
    pieces = list(reasoner.stream(asked("where?")))
    assert len(pieces) > 1
    assert "".join(pieces) == bare(reasoner, "where?")
    assert list(reasoner.stream(asked("where?"))) == pieces
    assert reasoner.answer_batch([asked("where?")] * 2) == ["".join(pieces)] * 2


def test_nothing_is_computed_before_it_is_asked_for_nor_after_closing(untaught: Path) -> None:
    reasoner = create_reasoner(str(untaught), SHORT)
    passes = counted(reasoner)
    stream = reasoner.stream(asked("where?"))
    assert len(passes) == 0
    for count in (1, 2, 5):
        list(islice(stream, count))
    assert 8 <= len(passes) <= 8 * 4  # a character may take several tokens
    before = len(passes)
    stream.close()  # type: ignore[attr-defined]
    assert list(stream) == []
    assert len(passes) == before


def test_an_answer_comes_out_in_pixels_of_the_picture(taught: Path) -> None:
    reasoner = create_reasoner("lingshu-7b", EngineOptions(device="cpu", models=taught.parent))
    pieces = list(reasoner.stream(asked("both")))
    text = "".join(pieces)
    trace, own, _ = ANSWERS["both"].partition("<answer>")
    assert text.startswith(trace + own)
    assert len(pieces) > 10  # token by token, and characters whole
    found = parse_answer(text)
    assert found.bbox == (15, 30, 45, 60)
    assert found.points == ((21.46, 42.89), (32.18, 53.61))
    grounding = found.on_image(150, 90)
    assert grounding.trace == "Round and bright é漢😀."
