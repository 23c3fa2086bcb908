"""Fetching a model from the hub: resumed where it was cut, checked, and pinned to a commit.

`huggingface_hub` does the transfer: it resumes partial files and honours HF_ENDPOINT and HF_TOKEN.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from napari_medreasoner.core.errors import MissingEngineError, WeightsError
from napari_medreasoner.engines.models.card import ModelCard, ModelFile
from napari_medreasoner.engines.models.folder import Manifest, folder_of, sha256_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["pull"]

_WANTED: Final = (".safetensors", ".json", ".txt", ".model", ".jinja")
"""Without a list of its own a model is its safetensors, configuration and tokenizer."""

_MARGIN: Final = 2**28
"""Bytes that must stay free on the disk."""


def pull(card: ModelCard, models: Path | None, on_file: Callable[[ModelFile], None]) -> Path:
    """Fetch a model into its folder; what is there and whole is not fetched again.

    Parameters
    ----------
    card : ModelCard
        Which one.
    models : Path or None
        Folder of all models; None takes the default.
    on_file : callable
        Told each file before it is fetched.

    Returns
    -------
    Path
        The folder; its manifest is written last, after every file was checked.

    Raises
    ------
    WeightsError
        When the hub cannot be reached or refuses, the disk is full, or what arrived is not what
        the hub lists. What was there before stays.
    MissingEngineError
        When `huggingface_hub` is not installed.
    """
    if not card.repository or card.family == "openai":
        raise WeightsError(f'The model "{card.name}" cannot be pulled: {card.description}')
    folder = folder_of(card, models)
    try:
        info = _listing(card)
        files = _chosen(card, info)
        _require_space(folder, files)
        _fetch(card, folder, str(info.sha), files, on_file)
    except (OSError, httpx.HTTPError) as error:  # the disk's, the hub's, the network's
        raise WeightsError(_sentence(card, folder, error)) from error
    return folder


def _listing(card: ModelCard) -> ModelInfo:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingEngineError(
            "Pulling needs huggingface_hub; install it with: "
            "pip install 'napari-medreasoner[models]'"
        ) from error
    return HfApi().model_info(card.repository, revision=card.revision, files_metadata=True)


def _chosen(card: ModelCard, info: ModelInfo) -> list[ModelFile]:
    """Files to fetch, with what the hub says of them."""
    named = {file.path for file in card.files}
    files = []
    for sibling in info.siblings or ():
        path = sibling.rfilename
        if path in named if named else path.endswith(_WANTED):
            sha256 = sibling.lfs.sha256 if sibling.lfs else ""
            files.append(ModelFile(path=path, sha256=sha256, size=sibling.size or 0))
    if missing := named - {file.path for file in files}:
        raise WeightsError(
            f"{card.repository} has no file {min(missing)}; the repository was changed: pull "
            "another revision, or fetch the file by hand."
        )
    if not any(file.path.endswith((".safetensors", ".pt", ".pth")) for file in files):
        raise WeightsError(
            f"{card.repository} has no safetensors, and other weights are not loaded; choose "
            "another model."
        )
    return files


def _require_space(folder: Path, files: list[ModelFile]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(file.size for file in files if not (folder / file.path).is_file())
    free = shutil.disk_usage(folder).free
    if needed + _MARGIN > free:
        raise WeightsError(
            f"{folder} has {free / 2**30:.1f} GiB free, and {needed / 2**30:.1f} GiB are to be "
            "fetched; free some, or name another folder with --models."
        )


def _fetch(
    card: ModelCard,
    folder: Path,
    commit: str,
    files: list[ModelFile],
    on_file: Callable[[ModelFile], None],
) -> None:
    from huggingface_hub import hf_hub_download

    got = []
    for file in files:
        path = folder / file.path
        if not (path.is_file() and file.sha256 and sha256_of(path) == file.sha256):
            on_file(file)
            hf_hub_download(card.repository, file.path, revision=commit, local_dir=folder)
        got.append(_checked(path, file))
    Manifest(repository=card.repository, revision=commit, files=tuple(got)).write(folder)


def _checked(path: Path, listed: ModelFile) -> ModelFile:
    """The file as it arrived; one that differs from the hub's list is not kept."""
    arrived = ModelFile(path=listed.path, sha256=sha256_of(path), size=path.stat().st_size)
    if arrived.sha256 != listed.sha256 and listed.sha256:
        path.unlink()
        raise WeightsError(f"{path.name} arrived damaged and was not kept; pull again.")
    return arrived


def _sentence(card: ModelCard, folder: Path, error: Exception) -> str:
    """What went wrong and what to do, without a word about tokens."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"The hub does not give {card.repository} to you; accept its terms there and set "
            "HF_TOKEN."
        )
    if status == 404:
        return f"The hub has no {card.repository} at {card.revision}; give the model as a folder."
    if status is not None:
        return f"The hub answered {status} for {card.repository}; try again later."
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{folder} cannot be written ({error.strerror}); free space or name another folder."
    return (
        "The hub cannot be reached; what has arrived is kept: check the network (and that "
        "HF_HUB_OFFLINE is not set) and pull again."
    )
