"""`medreasoner serve`: the backend process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medreasoner.core.errors import MissingEngineError

__all__ = ["serve"]


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token (chmod 600); else MEDREASONER_TOKEN is read."),
    ] = None,
    crm: Annotated[str, typer.Option(help="Name of the reasoner.")] = "prior",
    asm: Annotated[str, typer.Option(help="Name of the segmenter.")] = "classical",
    until_eof: Annotated[bool, typer.Option("--until-eof", help="End when stdin ends.")] = False,
) -> None:
    """Serve a reasoner and a segmenter on 127.0.0.1; prints one line with the address."""
    try:
        from napari_medreasoner.server.run import run
        from napari_medreasoner.server.settings import Settings, read_token
    except ImportError as error:
        raise MissingEngineError(
            f"The server needs a package that is not installed ({error.name}); install it with: "
            "pip install 'napari-medreasoner[backend]'"
        ) from error
    settings = Settings(token=read_token(token_file), port=port, crm=crm, asm=asm)
    run(settings, until_eof=until_eof)
