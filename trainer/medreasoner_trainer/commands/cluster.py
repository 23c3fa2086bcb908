"""`medreasoner-train slurm | doctor`: runs on many machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medreasoner_trainer.commands.extra import train_extra
from medreasoner_trainer.commands.train import Config, Out, Set
from napari_medreasoner.core.errors import BackendError
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["doctor", "slurm"]


def slurm(
    script: Annotated[Path, typer.Argument(help="Batch script to write.")],
    config: Config,
    run: Annotated[str, typer.Option(help="Folder of the run, seen by all nodes.")],
    set_: Set = None,
    layout: Annotated[
        Literal["colocate", "server"],
        typer.Option(help="server gives the last node to vLLM."),
    ] = "colocate",
    nodes: Annotated[int, typer.Option(min=1, help="Nodes, the one of vLLM included.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs on each node.")] = 8,
    sharding: Annotated[
        Literal["multi", "zero2", "zero3", "fsdp2"],
        typer.Option(help="How weights and optimiser are shared out."),
    ] = "zero3",
    time: Annotated[str, typer.Option(help="As sbatch takes it.")] = "24:00:00",
    partition: Annotated[str, typer.Option(help="As sbatch takes it.")] = "",
    account: Annotated[str, typer.Option(help="As sbatch takes it.")] = "",
) -> None:
    """Write a SLURM batch script that goes on with its run when its time is up; check it."""
    with train_extra("train"):
        from medreasoner_trainer.training.loading import load_config
        from medreasoner_trainer.training.sbatch import Job, batch_script
    overrides = tuple(set_ or ())
    loaded = load_config(config, overrides)
    job = Job(
        loaded.method,
        config,
        run,
        overrides,
        layout,
        nodes,
        gpus,
        sharding,
        time,
        partition,
        account,
    )
    write_text(script, batch_script(job, loaded))
    typer.echo(f"{script}: hand it over with: sbatch {script}")


def doctor(
    config: Config,
    out: Out,
    set_: Set = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that other processes are waited for.")
    ] = 120,
) -> None:
    """Check data, disk, ports, all-reduce and vLLM from every process of a run."""
    with train_extra("train"):
        from medreasoner_trainer.training.doctor import Machine, examine
        from medreasoner_trainer.training.loading import load_config
    machine = Machine.here()
    findings = examine(load_config(config, set_ or ()), out, machine, timeout)
    for finding in findings:
        mark = "ok  " if finding.well else "FAIL"
        if machine.rank == 0 or not finding.well:
            typer.echo(f"[rank {machine.rank}] {mark} {finding.check}: {finding.detail}")
    if bad := [finding for finding in findings if not finding.well]:
        raise BackendError(
            f"Rank {machine.rank} cannot train: {', '.join(finding.check for finding in bad)} "
            "failed, see above."
        )
