"""Choices that depend on a seed and a name alone, on every machine and in every order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["chosen"]

_T = TypeVar("_T")


def chosen(options: Sequence[_T], seed: int, *names: str) -> _T:
    """Choose one of the options; another seed or other names choose anew."""
    digest = hashlib.sha256("\n".join((str(seed), *names)).encode()).digest()
    return options[int.from_bytes(digest[:8]) % len(options)]
