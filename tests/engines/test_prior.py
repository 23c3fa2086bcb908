"""The prior reasoner: questions matched, refused, placed and told honestly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.grounding import Answer, parse_answer
from napari_medreasoner.engines.base import Reasoner, ReasonerInput
from napari_medreasoner.engines.embedded.catalogue import Catalogue
from napari_medreasoner.engines.embedded.prior import PriorReasoner
from napari_medreasoner.engines.embedded.priors import load_priors

NOISE = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reasoner() -> PriorReasoner:
    return PriorReasoner()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    structures = load_priors().structures
    return Catalogue({name: frozenset(found) for name, found in structures.items()})


def ask(
    reasoner: PriorReasoner, question: str, modality: str = "", image: NDArray[np.uint8] = NOISE
) -> str:
    return "".join(reasoner.stream(ReasonerInput(image, question, [], modality)))


def answer(text: str) -> Answer:
    return parse_answer(text)


@pytest.mark.parametrize(
    ("question", "modality", "name"),
    [
        ("which organ filters blood, left of the patient's spine?", "CT", "left kidney"),
        ("Which organ beside the spine on the patient's right makes urine?", "CT", "right kidney"),
        ("where does the optic nerve leave the eye?", "Fundus", "optic disc"),
        ("what is the bright round area from which thin lines emerge?", "", "optic disc"),
        ("Which organ makes insulin?", "CT", "pancreas"),
        ("Which organ detoxifies alcohol?", "", "liver"),
        ("Which tube carries food to the stomach?", "CT", "esophagus"),
        ("Which part of the heart pumps blood to the lungs?", "MRI", "right ventricle"),
        ("Is there any growth on the bowel wall that should be removed?", "", "polyp"),
        ("Which dark area on the right of the image holds air for breathing?", "", "left lung"),
        ("What is the white shape in the middle of the chest?", "X-ray", "cardiomediastinum"),
        ("Is there a hazy patch of viral pneumonia?", "X-ray", "ground glass opacity"),
        ("Which spot on this skin could be melanoma?", "Dermoscopy", "skin lesion"),
    ],
)
def test_implicit_questions(catalogue: Catalogue, question: str, modality: str, name: str) -> None:
    assert catalogue.match(question, catalogue.modality(modality))[0].name == name


def test_every_structure_is_found_by_its_name(catalogue: Catalogue) -> None:
    for name, found in load_priors().structures.items():
        for modality in found:
            assert catalogue.match(name, modality)[0].name == name


@pytest.mark.parametrize(
    "question",
    [
        "what is the weather",
        "Who won the football match yesterday?",
        "Recommend a restaurant on the left bank",
        "Where did I leave my car keys?",
        "?!",
    ],
)
def test_refuses_what_is_no_structure(reasoner: PriorReasoner, question: str) -> None:
    with pytest.raises(AnswerError, match="does not resemble") as caught:
        answer(ask(reasoner, question))
    assert caught.value.fault == "refused"


def test_refuses_a_structure_without_training_images(reasoner: PriorReasoner) -> None:
    with pytest.raises(AnswerError, match="no training images"):
        answer(ask(reasoner, "Which lung nodule needs a follow-up?", "CT"))


def test_modality_names(catalogue: Catalogue) -> None:
    assert catalogue.modality("xray") == catalogue.modality(" X-Ray ") == "X-ray"
    assert catalogue.modality("MR") == "MRI"
    assert catalogue.modality("PET") == ""


def test_a_given_modality_counts(catalogue: Catalogue) -> None:
    question = "Is there a suspicious lump in the breast?"
    assert catalogue.match(question, "Mammography")[0].name == "breast lesion"
    assert catalogue.match(question, "Ultrasound")[0].name.endswith("breast tumor")


def test_left_and_right_differ(reasoner: PriorReasoner) -> None:
    left = answer(ask(reasoner, "left kidney", "CT")).bbox
    right = answer(ask(reasoner, "right kidney", "CT")).bbox
    # Radiological convention: the patient's right is at the picture's left.
    assert right[0] + right[2] < left[0] + left[2]


def test_follows_the_evidence(reasoner: PriorReasoner) -> None:
    rows, columns = np.ogrid[:200, :200]
    boxes = []
    for x in (70, 130):
        dark = np.hypot(columns - x, rows - 100) <= 25
        image = np.where(dark[..., None], [90, 50, 40], [225, 180, 160]).astype(np.uint8)
        boxes.append(answer(ask(reasoner, "skin lesion", "Dermoscopy", image)).bbox)
    assert boxes[0][0] + boxes[0][2] < boxes[1][0] + boxes[1][2] - 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (40, 2), (4000, 4000), (64, 64)])
@pytest.mark.parametrize("question", ["liver", "right adrenal gland", "gallbladder"])
def test_any_image(reasoner: PriorReasoner, shape: tuple[int, int], question: str) -> None:
    image = np.full((*shape, 3), 128, np.uint8)
    found = answer(ask(reasoner, question, "MRI" if question == "gallbladder" else "", image))
    x1, y1, x2, y2 = found.bbox
    assert 0 <= x1 < x2 <= shape[1]
    assert 0 <= y1 < y2 <= shape[0]
    for x, y in found.points:
        assert x1 <= x < x2
        assert y1 <= y < y2


def test_is_deterministic(reasoner: PriorReasoner) -> None:
    assert ask(reasoner, "polyp", "Endoscopy") == ask(PriorReasoner(), "polyp", "Endoscopy")


def test_the_trace_says_what_was_done(reasoner: PriorReasoner) -> None:
    found = answer(ask(reasoner, "Which organ stores bile?", "CT"))
    assert "gallbladder (similarity 0." in found.trace
    assert "13 training images (CT)" in found.trace
    assert str([int(value) for value in found.bbox]) in found.trace
    assert "diagnos" not in found.trace
    unsided = answer(ask(reasoner, "kidney", "CT"))
    assert "The two are close" in unsided.trace
    elsewhere = answer(ask(reasoner, "Which pouch stores bile?", "MRI"))
    assert "rough guess" in elsewhere.trace


def test_streams_in_small_pieces(reasoner: PriorReasoner) -> None:
    assert isinstance(reasoner, Reasoner)
    image = np.zeros((512, 512, 3), np.uint8)
    pieces = list(reasoner.stream(ReasonerInput(image, "spleen", [], "CT")))
    assert len(pieces) > 20
    assert max(map(len, pieces[:-1])) < 40
