"""The embedded reasoner's two networks as ONNX graphs: what is seen, and what is said next.

They compute what transformers' Qwen2.5-VL computes for one picture, written plainly: transformers'
own code branches on lengths that a graph must leave open. Rotations of positions are inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from medreasoner_trainer.embedded.graphs import write_graph

__all__ = ["Language", "Vision", "write_graphs"]

_PATCHES: Final = 24
_PAST: Final = 5
_NEW: Final = 7
"""Lengths to trace with: any that differ."""


def _rotated(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of values of shape (head, place, width)."""
    first, second = values.chunk(2, dim=-1)
    return values * cos + torch.cat((-second, first), dim=-1) * sin


class Vision(nn.Module):
    """Tokens of a picture; every layer sees all of it.

    Parameters
    ----------
    visual : Module
        The vision tower of transformers.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, patches: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Tokens of shape (patch / 4, width) of patches (patch, 1176), rotations (patch, 32)."""
        visual = self.visual
        values = functional.linear(patches, visual.patch_embed.proj.weight.flatten(1))
        for block in visual.blocks:
            values = values + self._attended(block.attn, block.norm1(values), cos, sin)
            values = values + block.mlp(block.norm2(values))
        merger = visual.merger
        merged = merger.ln_q(values).reshape(-1, merger.hidden_size)
        tokens: Tensor = merger.mlp(merged)
        return tokens

    @staticmethod
    def _attended(attention: Any, values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        mixed = attention.qkv(values).unflatten(-1, (3, attention.num_heads, attention.head_dim))
        query, key, value = mixed.permute(1, 2, 0, 3).unbind(0)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        share = torch.softmax(query @ key.transpose(1, 2) * attention.scaling, dim=-1)
        found: Tensor = attention.proj((share @ value).transpose(0, 1).flatten(1))
        return found


class Language(nn.Module):
    """Logits of the next token after some more of a text, given what is kept of the text before.

    Parameters
    ----------
    language : Module
        The language model of transformers, its embeddings tied to its output.
    """

    def __init__(self, language: Any) -> None:
        super().__init__()
        self.model = language

    def forward(
        self, embedded: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One stretch of text.

        Parameters
        ----------
        embedded : Tensor, shape (new, width)
            Tokens.
        cos, sin : Tensor, shape (new, 32)
            Their rotations.
        keys, values : Tensor, shape (layer, group, past, 32)
            Kept of the text before.

        Returns
        -------
        logits : Tensor, shape (word,)
            After the last token.
        keys, values : Tensor, shape (layer, group, past + new, 32)
            To be kept.
        """
        hidden = embedded
        kept_keys, kept_values = [], []
        for number, layer in enumerate(self.model.layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            query, key, value = (
                project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            key = torch.cat([keys[number], _rotated(key, cos, sin)], dim=1)
            value = torch.cat([values[number], value], dim=1)
            kept_keys.append(key)
            kept_values.append(value)
            found = _causal(_rotated(query, cos, sin), key, value, attention)
            hidden = hidden + attention.o_proj(found)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        last = self.model.norm(hidden[-1:])
        logits = functional.linear(last, self.model.embed_tokens.weight)[0]
        return logits, torch.stack(kept_keys), torch.stack(kept_values)


def _causal(query: Tensor, key: Tensor, value: Tensor, attention: Any) -> Tensor:
    """Attention to what came before; groups of heads share keys and values."""
    groups = attention.num_key_value_groups
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    scores = query @ key.transpose(1, 2) * attention.scaling
    new, whole = query.shape[1], key.shape[1]
    later = torch.arange(whole)[None] > torch.arange(new)[:, None] + (whole - new)
    share = torch.softmax(scores.masked_fill(later, float("-inf")), dim=-1)
    return (share @ value).transpose(0, 1).flatten(1)


def write_graphs(model: Any, folder: Path) -> None:
    """Write `vision.onnx` and `language.onnx`; weights stay in the model's own file.

    Parameters
    ----------
    model : Qwen2_5_VLForConditionalGeneration
        Trained.
    folder : Path
        Where they go.
    """
    inner = model.model.eval()
    width = inner.config.text_config.hidden_size
    attention = inner.language_model.layers[0].self_attn
    head = attention.head_dim
    values = inner.visual.patch_embed.proj.weight[0].numel()
    write_graph(
        Vision(inner.visual),
        {"patches": torch.zeros(_PATCHES, values)} | _apart(("cos", "sin"), _PATCHES, head),
        ["tokens"],
        {name: {0: "patch"} for name in ("patches", "cos", "sin")},
        folder / "vision.onnx",
    )
    layers = len(inner.language_model.layers)
    groups = attention.config.num_key_value_heads
    write_graph(
        Language(inner.language_model),
        {"embedded": torch.zeros(_NEW, width)}
        | _apart(("cos", "sin"), _NEW, head)
        | _apart(("keys", "values"), layers, groups, _PAST, head),
        ["logits", "kept_keys", "kept_values"],
        {name: {0: "new"} for name in ("embedded", "cos", "sin")}
        | {name: {2: "past"} for name in ("keys", "values")},
        folder / "language.onnx",
    )


def _apart(names: tuple[str, ...], *shape: int) -> dict[str, Tensor]:
    """Inputs of one shape; were they one tensor, the graph would read the first for all."""
    return {name: torch.zeros(shape) for name in names}
