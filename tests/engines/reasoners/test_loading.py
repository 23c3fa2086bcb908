"""Folders that are damaged, incomplete, foreign or would run code are refused by name."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_medreasoner.core.errors import MissingEngineError, SettingsError, WeightsError
from napari_medreasoner.engines.device import device_of, dtype_of
from napari_medreasoner.engines.models.catalogue import card_of
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.reasoners import loading
from napari_medreasoner.engines.reasoners.transformers_vlm import load
from napari_medreasoner.engines.registry import create_reasoner
from tests.engines.reasoners.conftest import asked

CPU = EngineOptions(device="cpu", max_new_tokens=20)
WEIGHTS = "model.safetensors"


class Gadget:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.canary),)


@pytest.fixture
def folder(untaught: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untaught, tmp_path / "model"))


def edited(path: Path, **more: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


def _cut(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def _shard_gone(folder: Path) -> None:
    names = dict.fromkeys(load_file(folder / WEIGHTS), "model-00001-of-00002.safetensors")
    names["lm_head.weight"] = "model-00002-of-00002.safetensors"
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _tensor_gone(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _tensor_bent(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Gadget(folder / "canary"), file)


def _code(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'canary')!r}, 'w')")
    edited(folder / "config.json", auto_map={"AutoModelForImageTextToText": "evil.Model"})


def _other_type(folder: Path) -> None:
    edited(folder / "config.json", model_type="llava_next")


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')


def _no_processor(folder: Path) -> None:
    (folder / "processor_config.json").unlink()


def _no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _blind_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message['content'][-1]['text'] }}{% endfor %}"
    )


def _damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, r"model\.safetensors is cut or damaged"),
        (_shard_gone, r"model-00002-of-00002\.safetensors"),
        (_tensor_gone, r"lack 1 tensors of the model .*, lm_head\.weight"),
        (_tensor_bent, r"lack 1 tensors of the model or have them in another shape, lm_head"),
        (_pickled, r"pytorch_model\.bin, which could run code"),
        (_code, "code of its own, which is not run"),
        (_other_type, 'type "llava_next"'),
        (_adapter, "holds an adapter; merge it"),
        (_no_processor, "The processor in .* cannot be loaded .*image processor"),
        (_no_chat_template, "holds no chat template"),
        (_blind_chat_template, "chat template in .* leaves pictures out"),
        (_damaged_tokenizer, "The processor in .* cannot be loaded .*line 1"),
    ],
)
def test_a_spoilt_folder_is_refused_by_name(
    folder: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(WeightsError, match=said) as raised:
        load(card_of("qwen2.5-vl-7b"), folder, CPU)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (folder / "canary").exists()


def test_code_beside_tokenizer_and_processor_is_not_run(folder: Path) -> None:
    canary = folder / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    edited(folder / "processor_config.json", auto_map={"AutoProcessor": "evil.Processor"})
    edited(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Tokens"]})
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "evil.py", folder / "custom_generate" / "generate.py")
    reasoner = create_reasoner(str(folder), CPU)
    assert list(reasoner.stream(asked("where?")))
    assert not canary.exists()


def test_what_the_devices_cannot_do_is_said() -> None:
    with pytest.raises(SettingsError, match='"gpu" is not a device'):
        device_of(EngineOptions(device="gpu"))
    with pytest.raises(SettingsError, match='device "cuda:64" was asked for'):
        device_of(EngineOptions(device="cuda:64"))
    assert dtype_of(EngineOptions(), torch.device("cpu")) is torch.float32
    assert dtype_of(EngineOptions(), torch.device("cuda")) is torch.bfloat16
    assert dtype_of(EngineOptions(dtype="float16"), torch.device("cpu")) is torch.float16


@pytest.mark.parametrize("bits", ["4", "8"])
def test_fewer_bits_need_cuda(folder: Path, bits: Any) -> None:
    options = EngineOptions(device="cpu", quantisation=f"{bits}bit")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=f"Weights in {bits} bits need a CUDA device"):
        create_reasoner(str(folder), options)


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_fewer_bits_need_bitsandbytes() -> None:
    options = EngineOptions(quantisation="4bit")
    with pytest.raises(MissingEngineError, match=r"bitsandbytes; install it .*\[quantised\]"):
        loading._quantisation(options, torch.device("cuda"), torch.bfloat16)


def test_flash_attention_is_taken_where_it_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: True)
    assert loading._attention(cuda, torch.bfloat16) == "flash_attention_2"
    assert loading._attention(cuda, torch.float32) == "sdpa"
    assert loading._attention(cpu, torch.bfloat16) == "sdpa"
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: False)
    assert loading._attention(cuda, torch.bfloat16) == "sdpa"


def test_half_precision_is_loaded_as_such(folder: Path) -> None:
    reasoner: Any = create_reasoner(str(folder), EngineOptions(device="cpu", dtype="bfloat16"))
    assert {tensor.dtype for tensor in reasoner._model.parameters()} == {torch.bfloat16}


def test_penalties_and_chance_in_a_folder_are_left_out(folder: Path) -> None:
    plain: Any = create_reasoner(str(folder), CPU)
    text = "".join(plain.stream(asked("where?")))
    edited(
        folder / "generation_config.json",
        do_sample=True,
        temperature=5.0,
        repetition_penalty=5.0,
        top_k=3,
    )
    lively: Any = create_reasoner(str(folder), CPU)
    assert "".join(lively.stream(asked("where?"))) == text


def test_an_end_that_only_the_chat_template_uses_is_one(folder: Path) -> None:
    edited(folder / "generation_config.json", eos_token_id=0, pad_token_id=None)
    reasoner: Any = create_reasoner(str(folder), CPU)
    settings, tokens = reasoner._model.generation_config, reasoner._processor.tokenizer
    assert settings.eos_token_id == [0, tokens.convert_tokens_to_ids("<|im_end|>")]
    assert settings.pad_token_id == tokens.pad_token_id


def as_published(folder: Path) -> None:
    """Rearrange a folder as Qwen2.5-VL and most models made from it lie on the hub."""
    tensors = {
        key.replace("model.visual.", "visual.").replace("model.language_model.", "model."): tensor
        for key, tensor in load_file(folder / WEIGHTS).items()
    }
    (folder / WEIGHTS).unlink()
    places: dict[str, str] = {}
    for number, keys in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({key: tensors[key] for key in keys}, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(keys, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    inner = config.pop("text_config")
    rope = inner.pop("rope_parameters")
    inner["rope_theta"] = rope.pop("rope_theta")
    inner["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    del inner["model_type"]
    (folder / "config.json").write_text(json.dumps({**inner, **config}))
    processor = json.loads((folder / "processor_config.json").read_text())
    images = processor["image_processor"]
    size = images.pop("size")
    limits = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    named = {**images, **limits, "processor_class": processor["processor_class"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(named))
    (folder / "processor_config.json").unlink()
    chat = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": chat.read_text()}))
    chat.unlink()


def test_a_chat_template_with_the_tokenizer_alone_is_taken(folder: Path) -> None:
    own = list(create_reasoner(str(folder), CPU).stream(asked("where?")))
    chat = folder / "chat_template.jinja"
    edited(folder / "tokenizer_config.json", chat_template=chat.read_text())
    chat.unlink()
    assert list(create_reasoner(str(folder), CPU).stream(asked("where?"))) == own


def test_the_layout_that_qwen_published_is_read(folder: Path) -> None:
    """Shards, older keys, settings at the top of config.json, processor and template apart."""
    own: Any = create_reasoner(str(folder), CPU)
    as_published(folder)
    (folder / "generation_config.json").unlink()  # some that were made from it have none
    published: Any = create_reasoner(str(folder), CPU)
    assert list(published.stream(asked("where?"))) == list(own.stream(asked("where?")))
    assert published.frame(4000, 3000) == own.frame(4000, 3000)
