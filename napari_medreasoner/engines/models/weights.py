"""The one place where weights are read from files, running none of the code they may carry."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from napari_medreasoner.core.errors import WeightsError
from napari_medreasoner.engines.models.folder import sha256_of

__all__ = ["check_folder", "origin_of", "read_tensors"]

_FLOOR: Final = (2, 10)
"""Older versions of torch can be made to run code even by `weights_only` (CVE-2026-24747)."""

_PICKLES: Final = (".pt", ".pth", ".bin", ".ckpt")


def _require_safe_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _FLOOR:
        raise WeightsError(
            f"torch {torch.__version__} does not load weights safely; install 2.10 or newer."
        )


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Read a file of tensors: safetensors, or a pickle of nothing but tensors and containers.

    Raises
    ------
    WeightsError
        When the file is missing, cut, damaged, of another kind, or would run code.
    """
    _require_safe_torch()
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist; check the model's folder.") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors and was not loaded, as it could run code; get the "
            "weights as safetensors."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is cut or damaged; get the file again.") from error
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} holds no named tensors; it is not a model's weights.")
    return loaded


def check_folder(folder: Path, model_types: tuple[str, ...]) -> dict[str, Any]:
    """Check a folder in transformers' layout before transformers touches it.

    Parameters
    ----------
    folder : Path
        With `config.json` and safetensors.
    model_types : tuple of str
        Kinds of model that the caller can load.

    Returns
    -------
    dict
        The configuration.

    Raises
    ------
    WeightsError
        When configuration or weights are missing or damaged, of another kind, pickled, or need
        code of their own.
    """
    _require_safe_torch()
    config = _configuration(folder)
    if config.get("auto_map"):
        raise WeightsError(
            f"{folder} needs code of its own, which is not run; convert it to transformers' own "
            "classes, or serve it with vLLM."
        )
    kind = str(config.get("model_type"))
    if kind not in model_types:
        raise WeightsError(
            f'{folder} holds a model of the type "{kind}", which this engine does not load; it '
            f"loads: {', '.join(model_types)}."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = next((p.name for p in folder.iterdir() if p.suffix in _PICKLES), "")
        raise WeightsError(
            f"{folder} holds no safetensors"
            + (f" but {pickled}, which could run code" if pickled else "")
            + "; get the weights as safetensors."
        )
    for path in weights:
        _require_whole(path)
    return config


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read; {folder} holds no model.") from error
    except ValueError as error:
        raise WeightsError(f"{path} is damaged; get the file again.") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is no model's configuration; check the folder.")
    return config


def _require_whole(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is cut or damaged; get the file again.") from error


def origin_of(repository: str, revision: str, path: Path) -> str:
    """What `EngineInfo.weights` says: where from, and the first digits of the file's SHA-256."""
    where = f"{repository}@{revision[:12]}" if repository else path.parent.name
    return f"{where} {sha256_of(path)[:12]}"
