"""What a server is started with; the token never comes from the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from napari_medreasoner.core.errors import SettingsError

__all__ = ["ENVIRONMENT_VARIABLE", "HOST", "Settings", "read_token"]

HOST: Final = "127.0.0.1"
"""The only address served: other machines come in through an SSH tunnel."""

ENVIRONMENT_VARIABLE: Final = "MEDREASONER_TOKEN"
"""Environment variable that holds the token when no token file is named."""

_MIN_TOKEN: Final = 16
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server.

    Attributes
    ----------
    token : str
        What every request must bear: at least 16 printable ASCII characters, no blanks.
    port : int
        0 takes a free one.
    crm, asm : str
        Registry names of the reasoner and the segmenter.
    max_body_bytes : int
        Largest image accepted.
    image_cache_bytes : int
        How much of uploaded images is kept; the least recently used go first.

    Raises
    ------
    SettingsError
        When the token cannot be used.
    """

    token: str = field(repr=False)
    port: int = 0
    crm: str = "prior"
    asm: str = "classical"
    max_body_bytes: int = 2 * _GIB
    image_cache_bytes: int = 2 * _GIB

    def __post_init__(self) -> None:
        """Refuse a token that is short or could not travel in a header."""
        printable = self.token.isascii() and self.token.isprintable() and " " not in self.token
        if len(self.token) < _MIN_TOKEN or not printable:
            raise SettingsError(
                f"The token must have at least {_MIN_TOKEN} printable ASCII characters and no "
                "blanks; make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )


def read_token(path: Path | None) -> str:
    """Read the token from a file or, without one, from the environment.

    Raises
    ------
    SettingsError
        When there is neither, or the file is missing, empty or readable by other users.
    """
    if path is None:
        token = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
        if not token:
            raise SettingsError(
                "The server needs a token; name a file with --token-file or set "
                f"{ENVIRONMENT_VARIABLE}."
            )
        return token
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The token file {path} cannot be read as text; check the path."
        ) from error
    if mode & 0o077:
        raise SettingsError(
            f"The token file {path} is open to other users; close it with: chmod 600 {path}"
        )
    if not token:
        raise SettingsError(f"The token file {path} is empty; write a token into it.")
    return token
