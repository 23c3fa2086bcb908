"""Teaches a tiny model a few answers by heart, so that what it writes is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

_SCORE = 10.0


class Lesson(NamedTuple):
    """A picture of shape (row, column, 3), a question, and the text that must answer it."""

    picture: NDArray[np.uint8]
    question: str
    answer: str


def teach(folder: Path, lessons: Sequence[Lesson]) -> Path:
    """Give the model in a folder the output layer that writes these answers.

    The model itself stays random. Its last hidden states differ at every place of every
    answer, so the output layer that takes each of them to the token that comes next is the
    solution of a linear system, as long as there are fewer tokens than hidden numbers.
    """
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    pairs = [_states(processor, model, lesson) for lesson in lessons]
    states = torch.cat([states for states, _ in pairs]).double()
    tokens = torch.cat([tokens for _, tokens in pairs])
    assert len(tokens) < states.shape[1], "too many tokens to learn"
    wanted = torch.nn.functional.one_hot(tokens, model.lm_head.out_features).double() * _SCORE
    solved = torch.linalg.lstsq(states, wanted, driver="gelsd").solution
    model.lm_head.weight.data.copy_(solved.T)
    model.save_pretrained(folder)
    return folder


def _states(processor: Any, model: Any, lesson: Lesson) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states before each token of the answer, and those tokens."""
    content = [{"type": "image"}, {"type": "text", "text": lesson.question}]
    chat = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    answer = lesson.answer + processor.tokenizer.eos_token
    count = len(processor.tokenizer(answer).input_ids)
    inputs = processor(
        text=[prompt + answer], images=[[Image.fromarray(lesson.picture)]], return_tensors="pt"
    )
    with torch.no_grad():
        states = model.model(**inputs).last_hidden_state[0]
    return states[-count - 1 : -1], inputs["input_ids"][0, -count:]
