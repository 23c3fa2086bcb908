"""A small Qwen2.5-VL run by ONNX Runtime: a picture and a text in, greedy tokens out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from napari_medreasoner.core.errors import WeightsError
from napari_medreasoner.engines.embedded.graphs import Weights, open_graph, read_weights
from napari_medreasoner.engines.embedded.patches import MERGE, patches_of
from napari_medreasoner.engines.embedded.rotations import (
    picture_rotations,
    text_positions,
    text_rotations,
)

__all__ = ["GreedyDecoder"]

_IMAGE: Final = "<|image_pad|>"
_ENDS: Final = ("<|im_end|>", "<|endoftext|>")
_EMBEDDINGS: Final = "model.embed_tokens.weight"

Floats = NDArray[np.float32]


class GreedyDecoder:
    """Answers prompts about pictures, one token at a time.

    Parameters
    ----------
    folder : Path
        With `config.json`, `tokenizer.json`, `model.safetensors`, `vision.onnx` and
        `language.onnx`.

    Attributes
    ----------
    tokenizer : Tokenizer
        The model's.

    Raises
    ------
    WeightsError
        When a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            text = config["text_config"]
            rope = text["rope_parameters"]
        # The tokenizers package raises bare exceptions.
        except Exception as error:
            raise WeightsError(
                f"The model in {folder} cannot be read ({type(error).__name__}); write it again "
                "with: medreasoner-train embedded ship"
            ) from error
        weights = read_weights(folder / "model.safetensors")
        self._embeddings: Floats = weights[_EMBEDDINGS]
        self._vision = open_graph(folder / "vision.onnx", _part(weights, "visual."))
        self._language = open_graph(folder / "language.onnx", _part(weights, "model."))
        self._head = text["hidden_size"] // text["num_attention_heads"]
        self._rope = float(rope["rope_theta"]), rope["mrope_section"]
        self._nothing = np.zeros(
            (text["num_hidden_layers"], text["num_key_value_heads"], 0, self._head), np.float32
        )
        self._ends = {self.tokenizer.token_to_id(word) for word in _ENDS}
        vision = [number for word, number in self.tokenizer.get_vocab().items() if "vision" in word]
        pads = [self.tokenizer.token_to_id(word) for word in (_IMAGE, "<|video_pad|>")]
        self._banned = [*vision, *pads]

    def tokens(self, prompt: str, picture: NDArray[np.uint8], most: int) -> Iterator[int]:
        """Greedy tokens until the model ends its turn.

        Parameters
        ----------
        prompt : str
            With `<|image_pad|>` once, where the picture goes.
        picture : ndarray of uint8, shape (row, column, 3)
            Sides are multiples of 28.
        most : int
            Tokens at most.
        """
        patches, grid = patches_of(picture)
        cos, sin = picture_rotations(grid, self._head)
        seen = self._vision.run(None, {"patches": patches, "cos": cos, "sin": sin})[0]
        before, _, after = prompt.partition(_IMAGE)
        ids = [self._ids(before), self._ids(after)]
        embedded = np.concatenate([self._embeddings[ids[0]], seen, self._embeddings[ids[1]]])
        positions = text_positions(len(ids[0]), grid, len(ids[1]) + most)
        start = len(ids[0]) + grid[0] * grid[1] // MERGE**2 + len(ids[1])
        rotations = text_rotations(positions, self._head, *self._rope)
        kept = self._nothing, self._nothing
        place = slice(0, start)
        for step in range(most):
            token, kept = self._next(embedded, rotations, place, kept)
            if token in self._ends:
                return
            yield token
            embedded = self._embeddings[[token]]
            place = slice(start + step, start + step + 1)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _next(
        self,
        embedded: Floats,
        rotations: tuple[Floats, Floats],
        place: slice,
        kept: tuple[Floats, Floats],
    ) -> tuple[int, tuple[Floats, Floats]]:
        cos, sin = (rotation[place] for rotation in rotations)
        logits, keys, values = self._language.run(
            None,
            {"embedded": embedded, "cos": cos, "sin": sin, "keys": kept[0], "values": kept[1]},
        )
        logits[self._banned] = -np.inf
        return int(logits.argmax()), (keys, values)


def _part(weights: Weights, prefix: str) -> Weights:
    return {name: value for name, value in weights.items() if name.startswith(prefix)}
