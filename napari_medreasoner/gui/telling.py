"""What the user is told of an error: one sentence."""

from __future__ import annotations

import logging

from napari_medreasoner.core.errors import MedReasonerError

__all__ = ["sentence_of", "waiting_for"]

logger = logging.getLogger(__name__)


def sentence_of(error: BaseException) -> str:
    """Return the sentence for the error line; one that is a bug of ours is logged in full."""
    if isinstance(error, MedReasonerError):
        return str(error)
    logger.error("unexpected failure", exc_info=error)
    return (
        f"Something failed inside the plugin ({type(error).__name__}); your work is kept, "
        "and the log says where."
    )


def waiting_for(ahead: int) -> str:
    """Place in the queue of the backend, in words."""
    if ahead == 0:
        return "Waiting for the model…"
    return f"Waiting: {ahead} {'request' if ahead == 1 else 'requests'} first…"
