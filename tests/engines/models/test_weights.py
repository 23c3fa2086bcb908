"""Weights that are cut, foreign or would run code are refused by name, and run nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from napari_medreasoner.core.errors import MissingEngineError, WeightsError  # noqa: E402
from napari_medreasoner.engines.models.weights import check_folder, read_tensors  # noqa: E402
from napari_medreasoner.engines.registry import (  # noqa: E402
    create_reasoner,
    create_segmenter,
    reasoner_names,
)


class Gadget:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.canary),)


@pytest.fixture
def tensors() -> dict[str, Any]:
    return {"weight": torch.arange(1000.0).reshape(10, 100)}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_whole_files_are_read_and_cut_ones_refused(
    tmp_path: Path, tensors: dict[str, Any], name: str
) -> None:
    path = tmp_path / name
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    assert torch.equal(read_tensors(path)["weight"], tensors["weight"])
    whole = path.read_bytes()
    for length in (0, 1, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=f"{name} (is cut|holds more)"):
            read_tensors(path)
    path.unlink()
    with pytest.raises(WeightsError, match=r"does not exist|cut or damaged"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.safetensors"])
def test_a_gadget_never_runs(tmp_path: Path, name: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / name
    torch.save({"weight": Gadget(canary)}, path)
    with pytest.raises(WeightsError, match=name):
        read_tensors(path)
    assert not canary.exists()


def folder_with(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_folders_are_checked_before_they_are_loaded(
    tmp_path: Path, tensors: dict[str, Any]
) -> None:
    def refused(folder: Path, said: str) -> None:
        with pytest.raises(WeightsError, match=said):
            check_folder(folder, ("qwen2_5_vl",))

    refused(tmp_path / "nowhere", "holds no model")
    refused(folder_with(tmp_path / "other", model_type="bert"), 'type "bert"')
    refused(
        folder_with(tmp_path / "code", model_type="internvl_chat", auto_map={"AutoModel": "x.Y"}),
        "code of its own",
    )
    pickled = folder_with(tmp_path / "pickled", model_type="qwen2_5_vl")
    refused(pickled, "holds no safetensors;")
    torch.save(tensors, pickled / "pytorch_model.bin")
    refused(pickled, r"pytorch_model\.bin, which could run code")
    (pickled / "config.json").write_text("{")
    refused(pickled, "damaged")
    good = folder_with(tmp_path / "good", model_type="qwen2_5_vl")
    save_file(tensors, good / "model.safetensors")
    assert check_folder(good, ("qwen2_5_vl",))["model_type"] == "qwen2_5_vl"
    whole = (good / "model.safetensors").read_bytes()
    (good / "model.safetensors").write_bytes(whole[:-1])
    refused(good, r"model\.safetensors is cut")


def test_names_that_are_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDREASONER_MODELS", str(tmp_path))
    assert {"prior", "lingshu-7b"} <= set(reasoner_names())
    with pytest.raises(MissingEngineError, match="did you mean lingshu-7b"):
        create_reasoner("lingshu7b")
    with pytest.raises(WeightsError, match="models pull lingshu-7b"):
        create_reasoner("lingshu-7b")
    with pytest.raises(WeightsError, match=r"no config\.json"):
        create_reasoner(str(tmp_path))
    with pytest.raises(WeightsError, match="must name one of"):
        create_reasoner(str(folder_with(tmp_path / "bert", model_type="bert")))
    with pytest.raises(MissingEngineError, match="is a reasoner, not a segmenter"):
        create_segmenter(str(folder_with(tmp_path / "vlm", model_type="qwen2_5_vl")))
