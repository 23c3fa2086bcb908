"""Logs on stderr, one JSON object a line, without the token and without anybody's words.

A message of an exception may hold whatever was worked on (a question, a header of a file), so
only the exception's type and the places it went through are written.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

__all__ = ["log_to_stderr"]

_STANDARD: Final = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class _JsonFormatter(logging.Formatter):
    """Time, level, logger, message, the record's extra fields, and exceptions by type and place."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self._secret = secret

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exceptions"] = _places_of(record.exc_info[1])
        return json.dumps(line, default=str).replace(self._secret, "[secret]")


def _places_of(error: BaseException) -> list[dict[str, object]]:
    """Type and frames of an exception and of those that caused it, the outermost first."""
    found: list[dict[str, object]] = []
    at: BaseException | None = error
    while at is not None and len(found) < 10:
        found.append({"type": type(at).__name__, "frames": _frames(at.__traceback__)})
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return found


def _frames(trace: TracebackType | None) -> list[str]:
    return [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_tb(trace)]


def log_to_stderr(secret: str) -> None:
    """Send all logs to stderr, with "[secret]" in place of the secret."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter(secret))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
