"""Packages of the `eval` and `train` extras, which the plugin does without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from napari_medreasoner.core.errors import SettingsError

__all__ = ["train_extra"]


@contextmanager
def train_extra(extra: str = "eval") -> Iterator[None]:
    """Say what to install where an import inside the block fails.

    Parameters
    ----------
    extra : str
        Name of the extra.

    Raises
    ------
    SettingsError
        When a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise SettingsError(
            f"A package is not installed ({error.name}); install it with: "
            f"pip install 'napari-medreasoner[{extra}]'"
        ) from error
