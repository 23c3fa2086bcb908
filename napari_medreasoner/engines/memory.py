"""What an engine does when memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from napari_medreasoner.core.errors import MemoryShortageError

__all__ = ["free_memory", "memory_guard"]

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


def memory_guard(
    doing: str, work: Callable[[], _Result], smaller: Callable[[], _Result] | None = None
) -> _Result:
    """Do a piece of work; where memory runs out, free what can be freed and try once more.

    Parameters
    ----------
    doing : str
        Begins the sentence the user reads, as in "Embedding a picture".
    work : callable
        The work, which may be done twice.
    smaller : callable, optional
        The same work at a lower cost, for the second try.

    Raises
    ------
    MemoryShortageError
        When there is too little memory for the second try too.
    """
    done = _attempt(work)
    if done is None:
        free_memory()
        logger.warning("memory ran out; trying once more%s", " with less" if smaller else "")
        done = _attempt(smaller or work)
    if done is None:
        free_memory()
        raise MemoryShortageError(
            f"{doing} needs more memory than is free, even after the caches were emptied; close "
            "other programs that use the GPU, or start the server with a smaller model or with "
            "--device cpu."
        )
    return done[0]


def free_memory() -> None:
    """Give back what torch keeps for later use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _attempt(work: Callable[[], _Result]) -> tuple[_Result] | None:
    """The result, or None when memory ran out.

    The error goes no further: its traceback would keep the memory it is about.
    """
    try:
        return (work(),)
    except (MemoryError, RuntimeError) as error:
        if not _is_shortage(error):
            raise
        return None


def _is_shortage(error: Exception) -> bool:
    """Whether memory ran out: of CUDA, or of the machine, which torch tells in words alone."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(
        error
    )
