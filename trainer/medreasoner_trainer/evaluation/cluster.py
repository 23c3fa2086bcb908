"""The same evaluation on Ray Data: several processes here, or a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter

from medreasoner_trainer.evaluation.folder import RunConfig
from medreasoner_trainer.evaluation.run import Outcome, Spread, Worker
from napari_medreasoner.core.errors import (
    EngineError,
    MedReasonerError,
    SettingsError,
    error_from_code,
)

__all__ = ["RayWorker", "on_ray", "outcome_from"]

_BATCH: Final = 8
"""Records that go to a worker at a time: what each has to do again, at most, after a kill."""


class _Stopped(NamedTuple):
    """An error of ours on the way from a worker; raised there, Ray would wrap it in its own."""

    code: str
    message: str


_result: Final[TypeAdapter[Outcome | _Stopped]] = TypeAdapter(Outcome | _Stopped)


class RayWorker:
    """A worker as Ray Data wants it: kept in one process and called with batches.

    Data and engines are opened with the first batch, so that what goes wrong there comes
    back as a result too.

    Parameters
    ----------
    config : str
        JSON of the run's configuration.
    """

    def __init__(self, config: str) -> None:
        self._config = RunConfig.model_validate_json(config)
        self._worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Score the records whose ids are the column `id`; `outcome_from` reads the results."""
        results: list[Outcome | _Stopped]
        try:
            if self._worker is None:
                self._worker = Worker.from_config(self._config)
            results = list(self._worker.work([str(id_) for id_ in batch["id"]]))
        except MedReasonerError as error:
            results = [_Stopped(error.code, str(error))]
        return {"result": [_result.dump_json(result) for result in results]}


def outcome_from(result: bytes) -> Outcome:
    """Read one result of a worker.

    Raises
    ------
    MedReasonerError
        The one that stopped the worker.
    """
    outcome = _result.validate_json(result)
    if isinstance(outcome, _Stopped):
        raise error_from_code(*outcome)
    return outcome


def on_ray(config: RunConfig, workers: int) -> Spread:
    """Spread over a Ray cluster, each worker with its own data and engines.

    The cluster is the one the environment variable RAY_ADDRESS names, else one of this
    machine for as long as the evaluation takes. GPUs are shared out evenly. On a cluster
    every machine must find the data at the same path.

    Parameters
    ----------
    config : RunConfig
        Of the run.
    workers : int
        How many.

    Raises
    ------
    SettingsError
        When Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray.data
    except ImportError as error:
        raise SettingsError(
            f"A package is not installed ({error.name}); install it with: "
            "pip install 'ray[data]', or leave out --ray."
        ) from error

    def spread(ids: Sequence[str]) -> Iterator[Outcome]:
        if not ids:
            return
        ray.init(logging_level=logging.CRITICAL, log_to_driver=False)
        try:
            yield from _through_ray(config, ids, workers)
        except ray.exceptions.RayError as error:
            cause = str(getattr(error, "cause", None) or type(error).__name__)
            raise EngineError(
                f"A Ray worker failed ({cause}); what was finished is kept, and the same command "
                "goes on from there."
            ) from error
        finally:
            ray.shutdown()

    return spread


def _through_ray(config: RunConfig, ids: Sequence[str], workers: int) -> Iterator[Outcome]:
    import ray.data

    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    blocks = -(-len(ids) // _BATCH)
    rows = ray.data.from_items([{"id": id_} for id_ in ids], override_num_blocks=blocks)
    results = rows.map_batches(
        RayWorker,
        fn_constructor_args=(config.model_dump_json(),),
        batch_size=_BATCH,
        num_gpus=min(1.0, gpus / workers),
        compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
    )
    for row in results.iter_rows():
        yield outcome_from(row["result"])
