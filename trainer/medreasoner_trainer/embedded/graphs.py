"""Writes networks as the embedded engines read them: graph and weights apart."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.numpy_helper import to_array
from safetensors.torch import save
from torch import Tensor, nn

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.imaging.writers.atomic import write_bytes

__all__ = ["write_graph", "write_weights"]


def write_weights(weights: Mapping[str, Tensor], path: Path, about: dict[str, str]) -> None:
    """Write the floating-point weights in half precision.

    Parameters
    ----------
    weights : mapping of str to Tensor
        A state dict; counters of batches are left out.
    path : Path
        A safetensors file.
    about : dict of str to str
        Its metadata.
    """
    halves = {
        name: value.detach().half().contiguous()
        for name, value in weights.items()
        if value.is_floating_point()
    }
    write_bytes(path, save(halves, about))


def write_graph(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    free: Mapping[str, dict[int, str]],
    path: Path,
) -> None:
    """Write what a network computes as ONNX, without its weights.

    Parameters
    ----------
    network : Module
        Put into evaluation mode; called with the inputs in their order.
    inputs : mapping of str to Tensor
        Examples by name.
    outputs : sequence of str
        Their names.
    free : mapping of str to dict of int to str
        Axes of the inputs whose length may vary, by number, with their names.
    path : Path
        The file.

    Raises
    ------
    ExportError
        When the network cannot be written as a graph.
    """
    axes = {
        name: {axis: torch.export.Dim(label) for axis, label in free.get(name, {}).items()}
        for name in inputs
    }
    with warnings.catch_warnings():
        # The exporter warns of what it does itself: old names of torch, axes that share a name.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(axes.values()),
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"The network for {path} cannot be written as ONNX; report this.")
    model = program.model_proto
    _without_weights(model, set(network.state_dict()))
    write_bytes(path, model.SerializeToString(deterministic=True))


def _without_weights(model: Any, names: set[str]) -> None:
    """Say of the weights that they are stored elsewhere, and drop what only tells of the export."""
    for tensor in model.graph.initializer:
        if tensor.name not in names:
            continue
        size = to_array(tensor).nbytes
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(size))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    del model.graph.value_info[:], model.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
