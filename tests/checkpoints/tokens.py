"""A small tokenizer with any family's control words, trained in an instant on a few sentences."""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2.5 cuts text; every digit is a token of its own."""

_CORPUS = [
    "<think>The lesion lies in the left lobe.</think>",
    '<answer>{"bbox": [10, 20, 30, 40], "points_1": [1, 2], "points_2": [3, 4]}</answer>',
    "You are a helpful assistant. system user assistant where is the lesion? 0123456789",
]


def tokenizer(specials: list[str], *, end: str, pad: str, **more: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most 600 tokens, as Qwen's is built."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=specials,
        show_progress=False,
    )
    made.train_from_iterator(_CORPUS * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=end, pad_token=pad, model_max_length=8192, **more
    )
