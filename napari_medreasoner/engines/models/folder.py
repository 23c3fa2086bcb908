"""Where models lie on this machine, and whether a folder is what was pulled.

Each model has a folder of its name. `medreasoner.json` in it, written last, lists the files with
size and SHA-256 and names the commit they came from; a folder that a user filled by hand has none.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_medreasoner.core.errors import WeightsError
from napari_medreasoner.engines.models.card import Coordinates, ModelCard, ModelFile

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "MANIFEST",
    "Manifest",
    "faults_of",
    "folder_of",
    "models_folder",
    "require_folder",
    "sha256_of",
]

ENVIRONMENT_VARIABLE: Final = "MEDREASONER_MODELS"
"""Environment variable that names the folder of all models."""

MANIFEST: Final = "medreasoner.json"


class Manifest(BaseModel):
    """What lies in a model's folder.

    Attributes
    ----------
    repository, revision : str
        Where the files came from; the revision is a commit. Empty for what was trained here.
    files : tuple of ModelFile
        All of them, with size and SHA-256.
    coordinates : str or None
        How the model writes places, where its family leaves that open; see `ModelCard`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    repository: str = ""
    revision: str = ""
    files: tuple[ModelFile, ...] = ()
    coordinates: Coordinates | None = None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read a folder's manifest; None when it has none.

        Raises
        ------
        WeightsError
            When it is there but damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise WeightsError(f"{path} is damaged; pull the model again.") from error

    def write(self, folder: Path) -> None:
        """Write it in one step: a folder has a whole manifest or none."""
        temporary = folder / f"{MANIFEST}.part"
        with temporary.open("wb") as file:
            file.write(self.model_dump_json(indent=2, exclude_defaults=True).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / MANIFEST)


def models_folder(chosen: Path | None) -> Path:
    """The folder of all models: the one chosen, else the environment's, else the user's."""
    if chosen is not None:
        return chosen
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(named)
    return platformdirs.user_data_path("medreasoner", appauthor=False) / "models"


def folder_of(card: ModelCard, models: Path | None) -> Path:
    """Where a model lies, or would."""
    return models_folder(models) / card.name


def require_folder(card: ModelCard, models: Path | None) -> Path:
    """Folder of a model that is there, its sizes checked against its manifest if it has one.

    Raises
    ------
    WeightsError
        When it is not there, or not whole.
    """
    folder = folder_of(card, models)
    if not folder.is_dir():
        fetch = (
            f"fetch it with: medreasoner models pull {card.name}"
            if card.repository
            else f"put its files there; {card.description}"
        )
        raise WeightsError(f'The model "{card.name}" is not in {folder}; {fetch}')
    fault = next(faults_of(folder, hashes=False), None)
    if fault is not None:
        raise WeightsError(f"{fault}; fetch it again with: medreasoner models pull {card.name}")
    return folder


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def faults_of(folder: Path, *, hashes: bool = True) -> Iterator[str]:
    """Compare a folder with its manifest.

    Parameters
    ----------
    folder : Path
        Of one model.
    hashes : bool
        Read every file whole; else compare sizes only.

    Yields
    ------
    str
        One clause for each file that is missing, cut, changed, or unsafe to name. Nothing for a
        folder without a manifest: there is nothing to compare with.
    """
    manifest = Manifest.read(folder)
    for file in manifest.files if manifest else ():
        path = folder / file.path
        if not path.resolve().is_relative_to(folder.resolve()):
            yield f"{folder / MANIFEST} names {file.path}, which lies outside the folder"
        elif not path.is_file():
            yield f"{path} is missing"
        elif path.stat().st_size != file.size:
            yield f"{path} has {path.stat().st_size} bytes instead of {file.size}"
        elif hashes and sha256_of(path) != file.sha256:
            yield f"{path} differs from what was pulled"
