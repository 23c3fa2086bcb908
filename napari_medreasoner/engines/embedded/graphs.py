"""The shipped networks in ONNX Runtime: a graph without numbers, and its weights beside it.

The weights are a safetensors file, the same that training loads, in half precision; the graph
names them. So there is one copy of every number, and no pickle.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from safetensors import SafetensorError
from safetensors.numpy import load_file

from napari_medreasoner.core.errors import WeightsError

__all__ = ["SHIPPED", "Weights", "open_graph", "read_weights"]

SHIPPED: Final = Path(str(files("napari_medreasoner.engines.embedded") / "weights"))
"""Where the package keeps them."""

_THREADS: Final = 2

Weights = dict[str, Any]


def read_weights(path: Path) -> Weights:
    """Arrays of float32 by name.

    Raises
    ------
    WeightsError
        When the file is missing or damaged.
    """
    try:
        return {name: array.astype(np.float32) for name, array in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} cannot be read ({type(error).__name__}); get it again."
        ) from error


def open_graph(path: Path, weights: Weights) -> onnxruntime.InferenceSession:
    """Give a graph its weights and make it ready to run on the CPU.

    Parameters
    ----------
    path : Path
        ONNX file whose initialisers are stored elsewhere.
    weights : dict of str to ndarray of float32
        All that it names, and no others.

    Raises
    ------
    WeightsError
        When the graph is missing or damaged, or a weight is missing or of another shape.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = 1
    # Threads that wait for work by spinning take the other core from the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
    options.add_external_initializers(list(weights), values)
    try:
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    # The runtime's own errors have no base but Exception.
    except Exception as error:
        raise WeightsError(
            f"The network {path} does not fit its weights ({type(error).__name__}); get both again."
        ) from error
