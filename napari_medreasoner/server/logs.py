"""Logs on stderr, with the token blotted out."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["log_to_stderr"]

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _SecretFormatter(logging.Formatter):
    """Replaces the token in the finished text, tracebacks included."""

    def __init__(self, secret: str) -> None:
        super().__init__(_FORMAT)
        self._secret = secret

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace(self._secret, "[secret]")


def log_to_stderr(secret: str) -> None:
    """Send all logs to stderr, with "[secret]" in place of the secret."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SecretFormatter(secret))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
