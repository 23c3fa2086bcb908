"""What our stream costs beside bare `generate`: `python benchmarks/reasoners.py [--crm NAME]`.

First token and tokens per second, both ways in turn, on the same inputs in one process. Without
`--crm` a tiny Qwen2.5-VL is made, whose forward pass costs next to nothing: what is seen then is
the overhead itself. On a machine with a GPU, name a model that is there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.engines.base import ReasonerInput, question_for
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.registry import create_reasoner
from tests.checkpoints.vlm import qwen2_5_vl

SIDE = 448
QUESTION = "What could explain the bright round area?"


class Bench:
    """One reasoner and one question, asked through our stream and through `generate`."""

    def __init__(self, reasoner: Any, tokens: int) -> None:
        self.reasoner = reasoner
        self.tokens = tokens
        picture = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        self.request: ReasonerInput = question_for(
            reasoner, picture, QUESTION, BUILT_IN["Reasoning"]
        )
        # The same number of tokens both ways, whatever the model would like to say.
        reasoner._model.generation_config.min_new_tokens = tokens
        reasoner._model.generation_config.max_new_tokens = tokens

    def bare(self, tokens: int) -> float:
        """Seconds of `generate`, the processor included."""
        start = perf_counter()
        inputs = self.reasoner._inputs([self.request])
        made = self.reasoner._model.generate(**inputs, min_new_tokens=tokens, max_new_tokens=tokens)
        made.cpu()
        return perf_counter() - start

    def first(self) -> float:
        """Seconds until the first piece of the stream."""
        start = perf_counter()
        stream = self.reasoner.stream(self.request)
        next(stream)
        seconds = perf_counter() - start
        stream.close()
        return seconds

    def whole(self) -> float:
        """Seconds of the whole stream."""
        start = perf_counter()
        for _ in self.reasoner.stream(self.request):
            pass
        return perf_counter() - start


def in_turn(times: int, *ways: Callable[[], float]) -> list[np.ndarray]:
    """Seconds of each way, measured in turn after one round that is not counted."""
    rounds = [[way() for way in ways] for _ in range(times + 1)]
    return list(np.array(rounds[1:]).T)


def line(title: str, values: np.ndarray, unit: str) -> None:
    """Print median and spread."""
    low, middle, high = np.percentile(values, (5, 50, 95))
    print(f"  {title:28}{middle:10.1f} {unit:5}   5-95 %: {low:.1f} to {high:.1f}")


def report(bench: Bench, times: int) -> None:
    """Measure and print."""
    bare_first, first, bare_whole, whole = in_turn(
        times, lambda: bench.bare(1), bench.first, lambda: bench.bare(bench.tokens), bench.whole
    )
    print(f"{bench.reasoner.info.title}, {SIDE} x {SIDE} pixels, {times} rounds")
    line("first token, bare generate", bare_first * 1000, "ms")
    line("first token, our stream", first * 1000, "ms")
    line("  more, round by round", (first - bare_first) * 1000, "ms")
    line(f"{bench.tokens} tokens, bare generate", bench.tokens / bare_whole, "tok/s")
    line(f"{bench.tokens} tokens, our stream", bench.tokens / whole, "tok/s")
    line("  ratio, round by round", bare_whole / whole * 100, "%")


def main() -> None:
    """Read the options, load or make the model, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crm", help="name or folder; a tiny random model if left out")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if chosen.crm is None:
            torch.set_num_threads(1)
        name = chosen.crm or str(qwen2_5_vl(Path(made) / "tiny-qwen2.5-vl"))
        report(Bench(create_reasoner(name, EngineOptions()), chosen.tokens), chosen.rounds)


if __name__ == "__main__":
    main()
