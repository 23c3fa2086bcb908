"""`medreasoner models` as a user runs it, against a hub on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from napari_medreasoner.core.errors import MissingEngineError, WeightsError
from napari_medreasoner.engines.models.catalogue import card_of, catalogue
from napari_medreasoner.engines.models.folder import MANIFEST, Manifest, faults_of, require_folder
from tests.engines.models.hub import COMMIT, Hub, serving

NAME = "lingshu-7b"
FILES = {
    "config.json": b'{"model_type": "qwen2_5_vl"}',
    "model.safetensors": bytes(range(256)) * 4000,
    "training_args.bin": b"never fetched",
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(dict(FILES))) as hub:
        yield hub


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = {
            **kept,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "MEDREASONER_MODELS": str(tmp_path / "models"),
            **more,
        }
        command = [sys.executable, "-m", "napari_medreasoner.cli", "models", *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def sentence(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    return ran.stderr.splitlines()[-1]


def test_pull_list_info_verify_path(run: Run, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "models" / NAME
    pulled = run("pull", NAME)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.strip() == str(folder)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (folder / "training_args.bin").exists()
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.revision == COMMIT

    assert run("path", NAME).stdout.strip() == str(folder)
    listed = run("list").stdout.splitlines()
    assert next(line.split()[2] for line in listed if NAME in line) == "here"
    assert COMMIT in run("info", NAME).stdout
    assert run("verify", NAME).returncode == 0
    # Once here, everything works without the hub, and a second pull fetches nothing.
    before = list(hub.fetched)
    assert run("pull", NAME).returncode == 0
    assert hub.fetched == before
    hub.status = 500
    assert run("verify", NAME).returncode == 0


def test_a_cut_transfer_is_resumed(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = bytes(range(256)) * 100_000  # the library writes 10 MB pieces
    hub.cut.add("model.safetensors")
    first = run("pull", NAME)
    if first.returncode:  # the library may resume by itself
        assert not (tmp_path / "models" / NAME / MANIFEST).exists()
        assert "pull again" in sentence(first)
        assert run("pull", NAME).returncode == 0
    start = int(hub.ranges[0].removeprefix("bytes=").rstrip("-"))
    assert 0 < start <= 12_800_000
    assert run("verify", NAME).returncode == 0


def test_what_is_not_as_listed_is_not_kept(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.lies.add("model.safetensors")
    assert "damaged" in sentence(run("pull", NAME))
    folder = tmp_path / "models" / NAME
    assert not (folder / "model.safetensors").exists()
    assert not (folder / MANIFEST).exists()


@pytest.mark.parametrize(
    ("status", "said"), [(401, "accept its terms"), (404, "has no"), (503, "answered 503")]
)
def test_what_the_hub_says_is_one_sentence(run: Run, hub: Hub, status: int, said: str) -> None:
    hub.status = status
    assert said in sentence(run("pull", NAME, HF_TOKEN="hf_canary"))
    assert "canary" not in run("pull", NAME, HF_TOKEN="hf_canary").stderr


def test_no_hub_is_one_sentence(run: Run) -> None:
    assert "cannot be reached" in sentence(run("pull", NAME, HF_ENDPOINT="http://127.0.0.1:9"))
    assert "HF_HUB_OFFLINE" in sentence(run("pull", NAME, HF_HUB_OFFLINE="1"))


def test_every_change_is_found(run: Run, tmp_path: Path) -> None:
    assert run("pull", NAME).returncode == 0
    folder = tmp_path / "models" / NAME
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damage, said in {
        "one bit": "differs",
        "cut": "bytes instead of",
        "gone": "is missing",
    }.items():
        if damage == "gone":
            weights.unlink()
        else:
            weights.write_bytes(whole[:-1] if damage == "cut" else b"\x80" + whole[1:])
        assert said in sentence(run("verify", NAME))
    with pytest.raises(WeightsError, match="is missing"):
        require_folder(card_of(NAME), tmp_path / "models")
    (folder / MANIFEST).write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        list(faults_of(folder))


def test_a_manifest_cannot_name_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    folder = tmp_path / "model"
    folder.mkdir()
    file = {"path": "../secret", "sha256": "0" * 64, "size": 1}
    (folder / MANIFEST).write_text(json.dumps({"files": [file]}))
    assert "outside" in next(faults_of(folder))


def test_the_catalogue_holds_the_papers_models() -> None:
    crm = {card.title for card in catalogue().values() if card.role == "crm"}
    for title in ("Lingshu 7B", "Qwen2.5-VL 72B Instruct", "MedGemma 4B", "Seg-Zero 7B", "GPT-4o"):
        assert title in crm
    assert {"medsam2", "medsam", "sam-med2d"} <= set(catalogue())
    assert all(
        (card.coordinates == "none") == (card.role == "asm") for card in catalogue().values()
    )
    with pytest.raises(MissingEngineError, match="did you mean lingshu-7b"):
        card_of("lingshu7b")


@pytest.mark.parametrize("name", ["medreasoner-7b", "gpt-4o"])
def test_what_is_nowhere_to_be_had_cannot_be_pulled(run: Run, name: str) -> None:
    assert "cannot be pulled" in sentence(run("pull", name))
