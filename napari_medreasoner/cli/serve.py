"""`medreasoner serve`: the backend process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medreasoner.cli.engines import Device, Dtype, Endpoint, MaxNewTokens, Models, Quantise
from napari_medreasoner.core.defaults import ASM, CRM
from napari_medreasoner.core.errors import MissingEngineError
from napari_medreasoner.engines.options import EngineOptions

__all__ = ["serve"]


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token (chmod 600); else MEDREASONER_TOKEN is read."),
    ] = None,
    crm: Annotated[str, typer.Option(help="Name or folder of the reasoner.")] = CRM,
    asm: Annotated[str, typer.Option(help="Name or folder of the segmenter.")] = ASM,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantise: Quantise = None,
    models: Models = None,
    endpoint: Endpoint = "",
    max_new_tokens: MaxNewTokens = 2048,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback needs TLS and a name.")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None, typer.Option(help="Name under which other machines reach this one.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="TLS key, PEM.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Serve from several replicas, by Ray Serve.")
    ] = False,
    replicas: Annotated[int, typer.Option(min=1, help="With --ray: sets of engines.")] = 1,
    gpus: Annotated[
        float, typer.Option(min=0, help="With --ray: GPUs of each replica; 0 takes the CPU.")
    ] = 1.0,
    until_eof: Annotated[bool, typer.Option("--until-eof", help="End when stdin ends.")] = False,
) -> None:
    """Serve a reasoner and a segmenter; prints one line with the address."""
    try:
        from napari_medreasoner.server.run import run, run_distributed
        from napari_medreasoner.server.settings import Settings, read_token
    except ImportError as error:
        raise MissingEngineError(
            f"The server needs a package that is not installed ({error.name}); install it with: "
            "pip install 'napari-medreasoner[backend]'"
        ) from error
    settings = Settings(
        token=read_token(token_file),
        port=port,
        crm=crm,
        asm=asm,
        options=EngineOptions(
            device=device,
            dtype=dtype,
            quantisation=quantise,
            models=models,
            endpoint=endpoint,
            max_new_tokens=max_new_tokens,
        ),
        host=host,
        names=tuple(name or ()),
        certificate=certificate,
        key=key,
    )
    if ray:
        run_distributed(settings, replicas, gpus)
    else:
        run(settings, until_eof=until_eof)
