"""Whether the processes of a run reach each other and what they need, before weights are loaded."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Final, NamedTuple

import accelerate
import httpx
import torch
import transformers
import trl
from torch import distributed

from medreasoner_trainer.data import open_data
from medreasoner_trainer.training.config import TrainConfig, Vllm
from napari_medreasoner.core.errors import MedReasonerError

__all__ = ["Finding", "Machine", "examine"]

_MEBI: Final = 2**20
_SENT: Final = 64 * _MEBI
_GIB: Final = 2**30
_LEAST_FREE: Final = 10 * _GIB


class Finding(NamedTuple):
    """One check: what, whether it is well, and details in a few words."""

    check: str
    well: bool
    detail: str


class Machine(NamedTuple):
    """Where this process stands, as its launcher says.

    Attributes
    ----------
    rank, world : int
        Of this process, and how many there are.
    address, port
        Where they meet.
    """

    rank: int
    world: int
    address: str
    port: int

    @classmethod
    def here(cls) -> Machine:
        """Read the environment; without a launcher there is one process."""
        return cls(
            rank=int(os.environ.get("RANK", "0")),
            world=int(os.environ.get("WORLD_SIZE", "1")),
            address=os.environ.get("MASTER_ADDR", "127.0.0.1"),
            port=int(os.environ.get("MASTER_PORT", "29500")),
        )


def examine(config: TrainConfig, run: Path, machine: Machine, timeout: float) -> list[Finding]:
    """Check one thing after another; a check that cannot be made is one that failed.

    Parameters
    ----------
    config : TrainConfig
        Of the run.
    run : Path
        Its folder.
    machine : Machine
        Where this process stands.
    timeout : float
        Seconds that other processes are waited for.
    """
    findings = [
        _found("data", lambda: _data(config)),
        _found("model", lambda: _model(config.model.path)),
        _found("disk", lambda: _disk(run)),
    ]
    if machine.world > 1:
        findings.append(_found("address", lambda: _address(machine)))
        findings += _together(machine, timeout)
    vllm = config.rollout.vllm
    if vllm is not None and vllm.mode == "server":
        findings.append(_found("vllm", lambda: _vllm(vllm)))
    return findings


class _Unwell(Exception):
    """A check failed; the text says why."""


def _found(check: str, examination: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, examination())
    except (_Unwell, MedReasonerError, OSError, RuntimeError, httpx.HTTPError) as error:
        return Finding(check, False, f"{error or type(error).__name__}".splitlines()[0])


def _data(config: TrainConfig) -> str:
    data = open_data(Path(config.data.path))
    return f"{len(data.records)} records in {config.data.path}"


def _model(path: str) -> str:
    if not Path(path).is_dir():
        return f"{path} is no folder, so it is looked for in the local cache"
    weights = sum(file.stat().st_size for file in Path(path).glob("*.safetensors"))
    if not weights:
        raise _Unwell(f"{path} holds no weights (*.safetensors)")
    return f"{weights / _GIB:.1f} GiB in {path}"


def _disk(run: Path) -> str:
    above = next(folder for folder in (run, *run.resolve().parents) if folder.is_dir())
    free = shutil.disk_usage(above).free
    if free < _LEAST_FREE:
        raise _Unwell(f"{above} has only {free / _GIB:.1f} GiB free")
    return f"{free / _GIB:.0f} GiB free in {above}"


def _address(machine: Machine) -> str:
    try:
        found = socket.getaddrinfo(machine.address, machine.port, proto=socket.IPPROTO_TCP)
    except OSError as error:
        raise _Unwell(f"{machine.address} is no known host; check MASTER_ADDR") from error
    return f"{machine.address} is {found[0][4][0]}"


def _together(machine: Machine, timeout: float) -> list[Finding]:
    """Meet, add up, compare versions; the group is taken down again."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        distributed.init_process_group(
            "nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout)
        )
    except (RuntimeError, ValueError) as error:
        detail = (
            f"{machine.world} processes did not meet at {machine.address}:{machine.port} within "
            f"{timeout:g} s ({str(error).splitlines()[0]:.200}); check the port and the firewall"
        )
        return [Finding("meeting", False, detail)]
    try:
        return [
            Finding("meeting", True, f"{machine.world} processes"),
            _found("all-reduce", lambda: _all_reduce(machine, cuda=cuda)),
            _found("versions", _versions),
        ]
    finally:
        distributed.destroy_process_group()


def _all_reduce(machine: Machine, *, cuda: bool) -> str:
    data = torch.ones(_SENT // 4, device="cuda" if cuda else "cpu")
    distributed.all_reduce(data)  # the first one opens connections
    data.fill_(1)
    start = perf_counter()
    distributed.all_reduce(data)
    total = data.sum().item()
    seconds = perf_counter() - start
    if total != machine.world * data.numel():
        raise _Unwell(f"the sum over {machine.world} processes is wrong")
    return f"{_SENT // _MEBI} MiB in {1000 * seconds:.0f} ms"


def _versions() -> str:
    ours = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "accelerate": accelerate.__version__,
    }
    everyone: list[dict[str, str]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(everyone, ours)
    for name in ours:
        found = sorted({theirs[name] for theirs in everyone})
        if len(found) > 1:
            raise _Unwell(f"processes have different versions of {name}: {', '.join(found)}")
    return ", ".join(f"{name} {version}" for name, version in ours.items())


def _vllm(vllm: Vllm) -> str:
    """Wait for the server as long as training would."""
    url = f"http://{vllm.host}:{vllm.port}"
    end = monotonic() + vllm.timeout
    while True:
        try:
            httpx.get(f"{url}/health", timeout=5).raise_for_status()
            break
        except httpx.HTTPError as error:
            if monotonic() > end:
                raise _Unwell(
                    f"{url} does not answer after {vllm.timeout:g} s ({type(error).__name__}); "
                    "start it with: trl vllm-serve"
                ) from error
            sleep(1)
    return f"{url} answers"
