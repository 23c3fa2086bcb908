"""Greedy decoding that hands out one token at a time on the thread that asks for it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import torch

__all__ = ["tokens_of"]


def tokens_of(model: Any, inputs: Mapping[str, Any]) -> Generator[int]:
    """Yield the tokens that `model.generate(**inputs)` would give, one after each forward pass.

    Nothing is computed between two tokens asked for, and no thread is started, so closing
    the generator stops the work at once. `generate` does all that comes before decoding
    (cache, positions, logits processors, criteria for the end) and is then given the loop
    below in place of its own, which returns only when all is done.

    Parameters
    ----------
    model : transformers.GenerationMixin
        Its generation configuration asks for greedy decoding.
    inputs : mapping
        What its processor made of one conversation.
    """
    tokens: Generator[int] = model.generate(**inputs, custom_generate=_greedy)
    return tokens


def _greedy(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **model_kwargs: Any,
) -> Generator[int]:
    """Decode as `GenerationMixin._sample` does for one sequence without sampling."""
    with torch.no_grad():  # generate's own has ended by the time the first token is asked for
        outputs = model._prefill(input_ids, generation_config, model_kwargs)
    while True:
        with torch.no_grad():
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
            del outputs  # the logits of a whole prompt may be large
            token = logits_processor(input_ids, logits.to(input_ids.device)).argmax(dim=-1)
            input_ids = torch.cat([input_ids, token[:, None]], dim=-1)
            ended = bool(stopping_criteria(input_ids, None).all())
        yield int(token)
        if ended:
            return
        with torch.no_grad():
            step = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=1, **model_kwargs
            )
            outputs = model(**step, return_dict=True)
