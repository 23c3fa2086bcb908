"""Real model classes with tiny weights, through the code that loads the real models."""

import shutil
import threading
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medreasoner_trainer.evaluation.evaluator import BatchReasoner
from napari_medreasoner.core.errors import (
    AnswerError,
    ImageError,
    MemoryShortageError,
    QuestionError,
    WeightsError,
)
from napari_medreasoner.core.grounding import AnswerFault, parse_answer
from napari_medreasoner.core.prompts import BUILT_IN, PromptTemplate
from napari_medreasoner.engines.base import question_for
from napari_medreasoner.engines.embedded.classical import ClassicalSegmenter
from napari_medreasoner.engines.grounder import Grounder
from napari_medreasoner.engines.models.card import Coordinates, ModelCard
from napari_medreasoner.engines.models.catalogue import card_of
from napari_medreasoner.engines.models.folder import Manifest, ModelFile
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.reasoners.transformers_vlm import TransformersReasoner, load
from napari_medreasoner.engines.registry import create_reasoner
from tests.checkpoints.teaching import Lesson, teach
from tests.checkpoints.vlm import MAKERS
from tests.engines.reasoners.conftest import ANSWERS, PICTURE, asked

CPU = EngineOptions(device="cpu", max_new_tokens=40)
LONG = EngineOptions(device="cpu", max_new_tokens=200)

THOUSANDTHS = '{"bbox": [100, 200, 300, 400], "points_1": [1, 2], "points_2": [3, 4]}'


def bare(reasoner: Any, question: str) -> str:
    """What `generate` itself writes."""
    inputs = reasoner._inputs([asked(question)])
    made = reasoner._model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    return str(reasoner._processor.tokenizer.decode(made, skip_special_tokens=True))


def written_in(coordinates: Coordinates) -> ModelCard:
    """A card of the taught model that has it write places in another way."""
    return card_of("qwen2.5-vl-7b").model_copy(update={"coordinates": coordinates})


@pytest.fixture(scope="module")
def reasoner(taught: Path) -> Any:
    """The taught model, by its name in the catalogue."""
    options = EngineOptions(device="cpu", max_new_tokens=200, models=taught.parent)
    return create_reasoner("lingshu-7b", options)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # InternVL's processor
@pytest.mark.parametrize("family", MAKERS)
def test_every_family_streams_what_generate_gives(tmp_path: Path, family: str) -> None:
    folder = MAKERS[family](tmp_path / family)
    reasoner = create_reasoner(str(folder), CPU)
    assert isinstance(reasoner, TransformersReasoner)
    pieces = list(reasoner.stream(asked("where?")))
    text = "".join(pieces)
    assert len(pieces) > 1
    assert text == bare(reasoner, "where?")
    assert list(reasoner.stream(asked("where?"))) == pieces
    other = PICTURE[:50, :60]
    batch = [asked("where?"), asked("what is the round thing?", other), asked("where?")]
    assert reasoner.answer_batch(batch) == ["".join(reasoner.stream(one)) for one in batch]


def test_an_answer_comes_out_in_pixels_of_the_picture(reasoner: Any) -> None:
    pieces = list(reasoner.stream(asked("both")))
    text = "".join(pieces)
    trace, tag, _ = ANSWERS["both"].partition("<answer>")
    assert text.startswith(trace + tag)
    assert len(pieces) > 15
    assert isinstance(reasoner, BatchReasoner)
    assert {"é", "漢", "😀"} <= set(pieces)
    found = parse_answer(text, strict=True)
    assert found.bbox == (15, 30, 45, 60)
    assert found.points == ((21.46, 42.89), (32.18, 53.61))
    assert reasoner.answer_batch([asked("both"), asked("box")]) == [
        text,
        "".join(reasoner.stream(asked("box"))),
    ]


@pytest.mark.parametrize(
    ("coordinates", "box"),
    [
        ("pixels", (14, 28, 42, 56)),
        ("norm1000", (2.1, 2.52, 6.3, 5.04)),
        ("norm1000 yx", (4.2, 1.26, 8.4, 3.78)),
        ("norm1", (2100, 2520, 6300, 5040)),
    ],
)
def test_a_folder_says_how_its_model_writes_places(
    taught: Path, tmp_path: Path, coordinates: Coordinates, box: tuple[float, ...]
) -> None:
    folder = Path(shutil.copytree(taught, tmp_path / "mine"))
    Manifest(coordinates=coordinates).write(folder)
    reasoner: Any = create_reasoner(str(folder), LONG)
    reasoner._conversations._instruction = ""  # the answers were taught to the bare questions
    assert parse_answer("".join(reasoner.stream(asked("both")))).bbox == box


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # InternVL's processor
@pytest.mark.parametrize(
    ("name", "own", "said"),
    [
        (
            "medvlm-r1-2b",
            '{"bbox": [100, 200, 300, 400], "points_1": [1, 2], "points_2": [3, 4]}',
            "",
        ),
        (
            "internvl3-8b",
            '{"bbox": [100, 200, 300, 400], "points_1": [1, 2], "points_2": [3, 4]}',
            "",
        ),
        (
            "medgemma-4b",
            '{"bbox": [200, 100, 400, 300], "points_1": [1, 2], "points_2": [3, 4]}',
            "\nWrite y before x in every place: [y1, x1, y2, x2] and [y, x].",
        ),
        (
            "sam4mllm-8b",
            '{"bbox": [0.1, 0.2, 0.3, 0.4]}',
            "\nInstead of pixels, write fractions of the image's width and height, from 0 to 1.",
        ),
    ],
)
def test_each_family_by_a_card_of_the_catalogue(
    tmp_path: Path, name: str, own: str, said: str
) -> None:
    folder = MAKERS[card_of(name).family](tmp_path / name)
    text = f"<think>Here.</think><answer>{own}</answer>"
    teach(folder, [Lesson(PICTURE, f"where?{said}", text)])
    reasoner = create_reasoner(name, EngineOptions(device="cpu", models=tmp_path))
    found = parse_answer("".join(reasoner.stream(asked("where?"))), strict=True)
    assert found.bbox == (15, 18, 45, 36)
    assert found.trace.startswith("Here.")
    assert ("not by the model" in found.trace) == (name == "sam4mllm-8b")


def test_a_box_only_model_is_completed_and_says_so(taught: Path, tmp_path: Path) -> None:
    shutil.copytree(taught, tmp_path / "vlm-r1-3b")
    options = EngineOptions(device="cpu", max_new_tokens=200, models=tmp_path)
    request = asked("box")
    reasoner = create_reasoner("vlm-r1-3b", options)
    events = list(Grounder(reasoner, ClassicalSegmenter()).ground(request, _embedding()))
    assert [event.type for event in events if event.type != "think"] == [
        *("status", "answer", "status", "mask", "done")
    ]
    trace = "".join(event.text for event in events if event.type == "think")
    assert trace.startswith("Dark, to the left.")
    assert "[Added by napari-medreasoner, not by the model" in trace
    answer = next(event for event in events if event.type == "answer")
    assert answer.box.corners == (15, 30, 45, 60)
    assert [(point.x, point.y) for point in answer.points] == [(30, 44), (37, 44)]


def _embedding() -> Any:
    return ClassicalSegmenter().set_image(PICTURE)


def test_a_point_only_model_is_completed_and_says_so(taught: Path) -> None:
    card = card_of("qwen2.5-vl-7b").model_copy(update={"answers": "points"})
    text = "".join(load(card, taught, LONG).stream(asked("points")))
    found = parse_answer(text, strict=True)
    assert "not by the model, which gives points only" in found.trace
    assert found.bbox[2] - found.bbox[0] == pytest.approx(found.bbox[3] - found.bbox[1], abs=0.02)
    assert found.points == ((21.46, 42.89), (32.18, 53.61))


def test_nothing_is_computed_before_it_is_asked_for_nor_after_closing(reasoner: Any) -> None:
    passes: list[int] = []
    hook = reasoner._model.register_forward_hook(lambda *_: passes.append(1))
    threads = threading.active_count()
    stream = reasoner.stream(asked("both"))
    assert len(passes) == 0
    for count in range(1, 6):  # "<think", ">", "R", "o", "u": a token each
        next(stream)
        assert len(passes) == count
        assert threading.active_count() == threads
    stream.close()
    assert list(stream) == []
    assert len(passes) == 5
    hook.remove()


def test_two_streams_do_not_disturb_each_other(reasoner: Any) -> None:
    tall = asked("where?", np.full((400, 60, 3), 200, np.uint8))
    alone = list(islice(reasoner.stream(tall), 40))
    one, other = reasoner.stream(asked("both")), reasoner.stream(tall)
    pairs = list(islice(zip_longest(one, other), 40))
    assert [piece for _, piece in pairs] == alone
    text = "".join(piece for piece, _ in pairs if piece) + "".join(one)
    assert text == "".join(reasoner.stream(asked("both")))


def test_nothing_is_computed_after_the_answer(reasoner: Any) -> None:
    """The taught answer goes on behind its closing tag."""
    passes: list[int] = []
    hook = reasoner._model.register_forward_hook(lambda *_: passes.append(1))
    text = "".join(reasoner.stream(asked("box")))
    hook.remove()
    assert text.endswith("</answer>")
    own = ANSWERS["box"].removesuffix(" and so on")
    assert len(passes) == len(reasoner._processor.tokenizer(own).input_ids)


def test_an_answer_that_is_cut_is_told_by_the_parser(taught: Path) -> None:
    short = load(card_of("lingshu-7b"), taught, EngineOptions(device="cpu", max_new_tokens=50))
    text = "".join(short.stream(asked("both")))
    assert "<answer>" in text
    with pytest.raises(AnswerError) as raised:
        parse_answer(text)
    assert raised.value.fault == AnswerFault.NOT_JSON


def test_the_prompt_names_the_size_the_model_counts_in(reasoner: Any, taught: Path) -> None:
    request = question_for(reasoner, PICTURE, "where?", BUILT_IN["Direct"], "CT")
    assert "image of 140 x 84 pixels" in request.messages[-1].content
    assert request.modality == "CT"
    assert load(written_in("norm1000"), taught, CPU).frame(150, 90) == (1000, 1000)
    assert load(written_in("norm1"), taught, CPU).frame(150, 90) == (150, 90)


@pytest.mark.parametrize(
    "shape", [(90, 150), (28, 28), (1, 1), (600, 400), (1024, 1024), (30, 900)]
)
def test_the_size_is_the_one_the_processor_makes(reasoner: Any, shape: tuple[int, int]) -> None:
    picture = np.zeros((*shape, 3), np.uint8)
    grid = reasoner._inputs([asked("where?", picture)])["image_grid_thw"][0]
    assert reasoner.frame(shape[1], shape[0]) == (14 * grid[2], 14 * grid[1])


def test_the_convention_is_explained_where_the_template_cannot(taught: Path) -> None:
    reasoner: Any = load(written_in("norm1000 yx"), taught, CPU)
    template = PromptTemplate(name="a", user="$question on $width x $height", system="Be brief.")
    request = question_for(reasoner, PICTURE, "where?", template)
    text = reasoner._processor.tokenizer.decode(reasoner._inputs([request])["input_ids"][0])
    assert "where? on 1000 x 1000\nWrite y before x" in text
    assert text.index("Be brief.") < text.index("<|vision_start|>") < text.index("where?")


@pytest.mark.parametrize("word", ["<|image_pad|>", "<|im_end|>", "<|vision_start|>"])
def test_control_words_in_a_question_are_refused(reasoner: Any, word: str) -> None:
    with pytest.raises(QuestionError, match="control word") as raised:
        list(reasoner.stream(asked(f"where {word} is it?")))
    assert word in str(raised.value)


def test_tokens_that_stand_for_pictures_are_never_written(untaught: Path) -> None:
    """The output layer is made to prefer them to all others."""
    reasoner: Any = create_reasoner(str(untaught), CPU)
    config = reasoner._model.config
    banned = [config.image_token_id, config.video_token_id, config.vision_start_token_id]
    free = reasoner._processor.tokenizer.convert_tokens_to_ids("a")
    with torch.no_grad():
        reasoner._model.lm_head.weight.zero_()
        states = reasoner._model.lm_head.register_forward_pre_hook(
            lambda _, given: (torch.ones_like(given[0]),)
        )
        reasoner._model.lm_head.weight[banned] = 2.0
        reasoner._model.lm_head.weight[free] = 1.0
    assert "".join(reasoner.stream(asked("where?"))) == "a" * 40
    states.remove()


def test_a_picture_that_is_too_long_is_refused(reasoner: Any, taught: Path) -> None:
    picture = np.zeros((1, 300, 3), np.uint8)
    with pytest.raises(ImageError, match="300 x 1 pixels is too elongated"):
        list(reasoner.stream(asked("where?", picture)))
    with pytest.raises(ImageError, match="300 x 1"):
        question_for(reasoner, picture, "where?", BUILT_IN["Direct"])
    other = load(written_in("norm1000"), taught, CPU)  # does not need to know the resized sides
    with pytest.raises(ImageError, match="cannot take a picture of 300 x 1 pixels"):
        list(other.stream(asked("where?", picture)))


def test_too_little_memory_is_said_and_survived(reasoner: Any) -> None:
    def shortage(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    hook = reasoner._model.register_forward_pre_hook(shortage)
    with pytest.raises(MemoryShortageError, match="cpu has too little memory"):
        list(reasoner.stream(asked("both")))
    with pytest.raises(MemoryShortageError):
        reasoner.answer_batch([asked("both")])
    hook.remove()
    assert parse_answer("".join(reasoner.stream(asked("both"))))


def test_it_says_what_it_is(taught: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(taught, tmp_path / "lingshu-7b"))
    commit = "0123456789abcdef" * 2
    card = card_of("lingshu-7b")
    weights = folder / "model.safetensors"
    listed = ModelFile(path=weights.name, size=weights.stat().st_size)
    Manifest(repository=card.repository, revision=commit, files=(listed,)).write(folder)
    info = create_reasoner("lingshu-7b", EngineOptions(device="cpu", models=tmp_path)).info
    assert (info.name, info.title, info.licence) == ("lingshu-7b", "Lingshu 7B", "MIT")
    assert info.coordinates.startswith("pixels of the given image")
    assert "multiples of 28" in info.input_window
    assert info.weights.startswith("lingshu-medical-mllm/Lingshu-7B@0123456789ab ")
    assert not info.leaves_machine


def test_a_family_without_resized_pixels_is_not_taken_to_have_them(tmp_path: Path) -> None:
    folder = MAKERS["gemma3"](tmp_path / "gemma")
    Manifest(coordinates="resized pixels").write(folder)
    with pytest.raises(WeightsError, match="gemma3 do not"):
        create_reasoner(str(folder), CPU)
