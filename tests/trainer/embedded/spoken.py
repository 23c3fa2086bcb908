"""What transformers says, greedily, from the files of the torch-free engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from medreasoner_trainer.training.policy import banned_tokens
from napari_medreasoner.engines.embedded.small_qwen import MOST_TOKENS, PROMPT


class Spoken:
    """A model in transformers' layout."""

    def __init__(self, folder: Path) -> None:
        self._processor = AutoProcessor.from_pretrained(folder)
        # Pictures come as the model is shown them; some have a few pixels more than its area.
        self._processor.image_processor.do_resize = False
        self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self._model.eval()

    def said(self, question: str, picture: NDArray[np.uint8]) -> str:
        """Its answer to a question about a picture of shape (row, column, channel)."""
        text = PROMPT.render(question, *picture.shape[1::-1])[-1].content
        content = [{"type": "image", "image": picture.copy()}, {"type": "text", "text": text}]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        tokenizer = self._processor.tokenizer
        how = GenerationConfig(
            do_sample=False,
            max_new_tokens=MOST_TOKENS,
            eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
            pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=banned_tokens(self._processor),
        )
        whole = self._model.generate(**inputs, generation_config=how)[0]
        return str(
            tokenizer.decode(whole[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        )
