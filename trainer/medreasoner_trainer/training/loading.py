"""Recipes: a YAML file, what it extends, and overrides from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from medreasoner_trainer.training.config import TrainConfig
from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["beside_package", "load_config", "recipe_folder", "save_config"]

_EXTENDS: Final = "extends"
_DEEPEST: Final = 5


def beside_package(folder: str) -> Path:
    """A folder of files that ship: inside an installed package, beside it in a checkout."""
    package = Path(str(files("medreasoner_trainer")))
    installed = package / folder
    return installed if installed.is_dir() else package.parent / folder


def recipe_folder() -> Path:
    """Folder of the recipes that ship."""
    return beside_package("configs")


def load_config(recipe: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe.

    Parameters
    ----------
    recipe : str
        A YAML file, or the name of a recipe that ships, such as "soft". Its key `extends` names
        another one that it changes.
    overrides : sequence of str
        As "section.key=value", the value in YAML; the last one wins.

    Raises
    ------
    SettingsError
        When a file cannot be read, or a key or value is wrong; a misspelt key gets a suggestion.
    """
    path = _path_of(recipe, Path())
    values = _read(path)
    for override in overrides:
        _override(values, override)
    _refuse_unknown(TrainConfig, values, "", str(path))
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{path}, {place}: {reason}.") from None


def save_config(config: TrainConfig, path: Path) -> None:
    """Write a configuration with every default filled in; `load_config` reads it.

    Raises
    ------
    ExportError
        When it cannot be written.
    """
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _path_of(recipe: str, beside: Path) -> Path:
    shipped = recipe_folder() / f"{recipe}.yaml"
    if shipped.is_file() and "/" not in recipe:
        return shipped
    path = beside / recipe
    if path.is_file():
        return path
    names = sorted(file.stem for file in recipe_folder().glob("*.yaml"))
    raise SettingsError(
        f'There is no recipe "{recipe}"; give a YAML file or one of: {", ".join(names)}.'
    )


def _read(path: Path, depth: int = 0) -> dict[str, Any]:
    """The values of a file laid over those of the file that it extends."""
    if depth > _DEEPEST:
        raise SettingsError(f"{path} extends itself; name another recipe in it.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read; check the path.") from error
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise SettingsError(f"{path} is not valid YAML: {told:.300}.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds no keys; see the recipes that ship.")
    _find_prompt(values, path.parent)
    if _EXTENDS not in values:
        return values
    below = _path_of(str(values.pop(_EXTENDS)), path.parent)
    return _merged(_read(below, depth + 1), values)


def _find_prompt(values: dict[str, Any], folder: Path) -> None:
    """A template that is a file lies beside the recipe that names it."""
    data = values.get("data")
    if not isinstance(data, dict):
        return
    prompt = data.get("prompt")
    if isinstance(prompt, str) and (folder / prompt).is_file():
        data["prompt"] = str((folder / prompt).resolve())


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise SettingsError(f'"{override}" sets nothing; write it as section.key=value.')
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f'The value in "{override}" is not valid YAML.') from error
    *sections, last = key.strip().split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = inner = dict(inner) if isinstance(inner, dict) else {}
        values = inner
    values[last] = value


def _refuse_unknown(model: type[BaseModel], values: Any, place: str, path: str) -> None:
    """Before the values are checked, so that a misspelt key is told as such, with the nearest."""
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            near = get_close_matches(str(key), model.model_fields, n=1, cutoff=0.5)
            known = ", ".join(model.model_fields)
            told = f'did you mean "{place}{near[0]}"?' if near else f"known there are: {known}."
            raise SettingsError(f'{path} has an unknown key "{place}{key}"; {told}')
        section = _section_of(field.annotation)
        if section is not None:
            _refuse_unknown(section, value, f"{place}{key}.", path)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
