"""What a server is started with; the token never comes from the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from napari_medreasoner.core.defaults import ASM, CRM
from napari_medreasoner.core.errors import SettingsError
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["ENVIRONMENT_VARIABLE", "HOST", "Settings", "read_token"]

HOST: Final = "127.0.0.1"
"""The address served unless another is asked for: other machines come through an SSH tunnel."""

ENVIRONMENT_VARIABLE: Final = "MEDREASONER_TOKEN"
"""Environment variable that holds the token when no token file is named."""

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
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
        Registry names, or folders, of the reasoner and the segmenter.
    options : EngineOptions
        What the engines are built with.
    max_body_bytes : int
        Largest image accepted.
    image_cache_bytes, embedding_cache_bytes : int
        How much of uploaded images and of embeddings is kept; the least recently used go first.
    most_waiting : int
        Requests that may wait for the engines; further ones are told to come later.
    host : str
        Address to listen on.
    names : tuple of str
        Names under which other machines reach this one.
    certificate, key : Path or None
        PEM files for TLS.

    Raises
    ------
    SettingsError
        When the token cannot be used, or other machines could listen in.
    """

    token: str = field(repr=False)
    port: int = 0
    crm: str = CRM
    asm: str = ASM
    options: EngineOptions = field(default_factory=EngineOptions)
    max_body_bytes: int = 2 * _GIB
    image_cache_bytes: int = 2 * _GIB
    embedding_cache_bytes: int = _GIB
    most_waiting: int = 64
    host: str = HOST
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a token that is short or could not travel in a header, and open doors."""
        self._check_token()
        self._check_address()

    def _check_token(self) -> None:
        printable = self.token.isascii() and self.token.isprintable() and " " not in self.token
        if len(self.token) < _MIN_TOKEN or not printable:
            raise SettingsError(
                f"The token must have at least {_MIN_TOKEN} printable ASCII characters and no "
                "blanks; make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )

    def _check_address(self) -> None:
        for path in (self.certificate, self.key):
            if path is not None and not path.is_file():
                raise SettingsError(f"The TLS file {path} does not exist; check the path.")
        if self.host in _LOOPBACK:
            return
        if self.certificate is None or self.key is None or not self.names:
            raise SettingsError(
                f"On {self.host} other machines could reach the server and read patients' images "
                "on the way; keep 127.0.0.1 and come through a tunnel (ssh -L 8765:127.0.0.1:PORT "
                "HOST), or give --certificate, --key and --name."
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
