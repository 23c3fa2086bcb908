"""The embedded reasoner before it has learned anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from medreasoner_trainer.construct.clues import load_clues, load_frames, load_unanswerable
from medreasoner_trainer.embedded.reasoner.numbers import order_numbers
from medreasoner_trainer.embedded.reasoner.wording import answer_texts
from medreasoner_trainer.training.tiny import small_config, small_processor, token_ids
from medreasoner_trainer.training.tokens import END_OF_TEXT, END_OF_TURN, small_tokenizer

__all__ = ["New", "new_model"]

_WIDTH: Final = 192
_LAYERS: Final = 4
_SEEING: Final = 6
_WORDS: Final = 4000


class New(NamedTuple):
    """Model and processor."""

    model: Any
    processor: Any


def new_model(seed: int = 0) -> New:
    """Random weights, and a tokenizer that knows the words of the training texts."""
    tokenizer = small_tokenizer(_texts(), _WORDS)
    ids = token_ids(tokenizer)
    config = small_config(_WIDTH, _LAYERS, len(tokenizer), ids, _SEEING)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    order_numbers(model, tokenizer, seed)
    model.generation_config.eos_token_id = [ids[END_OF_TURN], ids[END_OF_TEXT]]
    model.generation_config.pad_token_id = ids[END_OF_TEXT]
    return New(model, small_processor(tokenizer))


def _texts() -> Iterator[str]:
    for clues in load_clues().values():
        yield from (*clues.names, *clues.things, *clues.stems)
    yield from load_frames()
    unanswerable = load_unanswerable()
    yield from (*unanswerable.beyond, *unanswerable.other_body)
    yield from answer_texts() * 2
