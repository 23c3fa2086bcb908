"""What the routes share: engines at work, images, leases, and the end of it all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from napari_medreasoner.core.prompts import BUILT_IN
from napari_medreasoner.core.protocol import Capabilities
from napari_medreasoner.engines.base import Reasoner, Segmenter
from napari_medreasoner.server.leases import Leases
from napari_medreasoner.server.metrics import Metrics
from napari_medreasoner.server.newest import Newest
from napari_medreasoner.server.settings import Settings
from napari_medreasoner.server.store import ImageStore
from napari_medreasoner.server.workbench import Workbench
from napari_medreasoner.server.worker import Worker

__all__ = ["Backend", "build"]


@dataclass(frozen=True, slots=True)
class Backend:
    """One application's parts.

    Attributes
    ----------
    capabilities : Capabilities
        Told to clients.
    images : ImageStore
        What was uploaded.
    leases : Leases
        Which clients are there.
    newest : Newest
        Which of their requests count.
    workbench : Workbench
        The engines; called on the worker's thread only.
    worker : Worker
        That thread.
    metrics : Metrics
        What is counted.
    ending : asyncio.Event
        Set when the server begins to end.
    """

    capabilities: Capabilities
    images: ImageStore
    leases: Leases
    newest: Newest
    workbench: Workbench
    worker: Worker
    metrics: Metrics
    ending: asyncio.Event = field(default_factory=asyncio.Event)


def build(settings: Settings, reasoner: Reasoner, segmenter: Segmenter) -> Backend:
    """Put the parts together and let the metrics watch them."""
    metrics = Metrics()
    images = ImageStore(settings.image_cache_bytes)
    workbench = Workbench(reasoner, segmenter, settings.embedding_cache_bytes, metrics)
    worker = Worker(settings.most_waiting, idle=workbench.encode_ahead)

    def forget(hashes: set[str]) -> None:
        for sha256 in hashes:
            images.forget(sha256)
        worker.post(lambda: workbench.forget(hashes))

    leases = Leases(forget)
    metrics.watch("waiting_jobs", "Jobs in the queue.", lambda: worker.waiting)
    metrics.watch("clients", "Clients with a lease.", lambda: len(leases))
    metrics.watch("image_bytes", "Bytes of uploaded images.", lambda: images.nbytes)
    metrics.watch("embedding_bytes", "Bytes of embeddings.", lambda: workbench.embedding_bytes)
    return Backend(
        capabilities=Capabilities(
            crm=reasoner.info,
            asm=segmenter.info,
            max_body_bytes=settings.max_body_bytes,
            templates=tuple(BUILT_IN),
        ),
        images=images,
        leases=leases,
        newest=Newest(),
        workbench=workbench,
        worker=worker,
        metrics=metrics,
    )
