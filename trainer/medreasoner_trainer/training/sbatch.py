"""Batch scripts for SLURM, written from one template and checked before they are handed over."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, dataclass
from shlex import quote
from shutil import which
from typing import Final, Literal

from jinja2 import Environment, StrictUndefined

from medreasoner_trainer.training.arithmetic import Arithmetic
from medreasoner_trainer.training.config import TrainConfig
from medreasoner_trainer.training.loading import beside_package
from napari_medreasoner.core.errors import SettingsError

__all__ = ["Job", "batch_script", "check_script"]

Layout = Literal["colocate", "server"]
Sharding = Literal["multi", "zero2", "zero3", "fsdp2"]

_MANY: Final = 10**9


@dataclass(frozen=True, slots=True)
class Job:
    """What the scheduler is asked for.

    Attributes
    ----------
    method : str
        "sft" or "grpo".
    recipe : str
        As for `medreasoner-train grpo --config`.
    run : str
        Folder of the run, seen by all nodes.
    overrides : tuple of str
        As for `--set`.
    layout : str
        "server" gives the last node to vLLM.
    nodes, gpus : int
        Nodes, and GPUs on each.
    sharding : str
        Which configuration of accelerate.
    time, partition, account : str
        As sbatch takes them; empty leaves the last two out.
    """

    method: str
    recipe: str
    run: str
    overrides: tuple[str, ...] = ()
    layout: Layout = "colocate"
    nodes: int = 1
    gpus: int = 8
    sharding: Sharding = "zero3"
    time: str = "24:00:00"
    partition: str = ""
    account: str = ""

    @property
    def training_nodes(self) -> int:
        """Nodes that train."""
        return self.nodes - (self.layout == "server")


def batch_script(job: Job, config: TrainConfig) -> str:
    """Write the script.

    Raises
    ------
    SettingsError
        When the layout does not fit the recipe or the number of nodes, or the batch does not
        divide by the GPUs.
    """
    vllm = config.rollout.vllm
    if job.layout == "server" and (vllm is None or vllm.mode != "server"):
        raise SettingsError(
            "The server layout needs a recipe with rollout.vllm.mode server, such as multinode."
        )
    if job.layout == "colocate" and vllm is not None and vllm.mode == "server":
        raise SettingsError("This recipe wants a vLLM server; use --layout server.")
    if job.training_nodes < 1:
        raise SettingsError("The server layout takes one node for vLLM; ask for 2 nodes or more.")
    Arithmetic.of(config, _MANY, job.training_nodes * job.gpus)
    template = (beside_package("slurm") / "train.sh.j2").read_text(encoding="utf-8")
    # Not HTML: what is put in is quoted for the shell by the filter "quoted".
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    environment.filters["quoted"] = quote
    script = environment.from_string(template).render(
        **asdict(job),
        training_nodes=job.training_nodes,
        accelerate=str(beside_package("configs") / "accelerate" / f"{job.sharding}.yaml"),
        model=config.model.path,
        port=vllm.port if vllm else 0,
    )
    check_script(script)
    return script


def check_script(script: str) -> None:
    """Let bash read a script without running it.

    Raises
    ------
    SettingsError
        When bash is not there or finds a fault.
    """
    bash = which("bash")
    if bash is None:
        raise SettingsError("The script cannot be checked, as there is no bash on this machine.")
    checked = subprocess.run(  # noqa: S603 (nothing is run: -n only reads)
        [bash, "-n"], input=script, capture_output=True, text=True, check=False
    )
    if checked.returncode:
        raise SettingsError(f"The script is not valid: {checked.stderr.strip():.300}")
