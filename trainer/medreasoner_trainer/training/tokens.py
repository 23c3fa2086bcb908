"""A small tokenizer in Qwen's manner, in which every coordinate is one token."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from medreasoner_trainer.construct.questions import load_bank
from medreasoner_trainer.construct.traces import load_phrases
from napari_medreasoner.core.geometry import Box, Point
from napari_medreasoner.core.grounding import format_answer
from napari_medreasoner.core.prompts import BUILT_IN

__all__ = ["CHAT_TEMPLATE", "END_OF_TEXT", "END_OF_TURN", "small_tokenizer"]

END_OF_TEXT: Final = "<|endoftext|>"
END_OF_TURN: Final = "<|im_end|>"
_SPECIAL: Final = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_LARGEST: Final = 1023
"""Coordinates up to this one are one token; larger ones are several."""

_MERGED: Final = 1500

_PIECES: Final = r"\p{N}{1,4}| ?\p{L}+|[^\s\p{L}\p{N}]+ ?|\s+"
_CONTEXT: Final = 4096

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes a conversation as the template of Qwen2.5-VL does."""


def small_tokenizer(more: Iterable[str] = (), merged: int = _MERGED) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the project's own prompts, questions and phrases; takes a second.

    Parameters
    ----------
    more : iterable of str
        Further texts that it should write in few tokens.
    merged : int
        Tokens that are learned from the texts, bytes included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=merged + len(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(_SPECIAL),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(_texts(), more), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=_with_numbers(tokenizer),
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        model_max_length=_CONTEXT,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def _with_numbers(tokenizer: Tokenizer) -> Tokenizer:
    """The same with a token for each whole number; a word in the vocabulary is never split."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    model = content["model"]
    vocabulary = model["vocab"]
    for number in range(_LARGEST + 1):
        vocabulary.setdefault(str(number), len(vocabulary))
    model["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(content))


def _texts() -> Iterator[str]:
    """What the model will read and write."""
    for template in BUILT_IN.values():
        yield from (message.content for message in template.render("?", 840, 840))
    for bank in load_bank().values():
        yield from bank.for_split("train")
    for topic in load_phrases().values():
        for sentences in topic.values():
            yield from sentences
    answer = format_answer("", Box.from_corners(1, 2, 30, 40), (Point(x=5, y=6), Point(x=7, y=8)))
    yield from [answer, "system user assistant You are a helpful assistant."] * 50
