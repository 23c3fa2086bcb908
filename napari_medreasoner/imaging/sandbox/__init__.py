"""Files nobody vouches for, opened in a process of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_medreasoner.imaging.sandbox.parent import (
        cool_down,
        list_parts_sandboxed,
        read_sandboxed,
        warm_up,
    )

__all__ = ["cool_down", "list_parts_sandboxed", "read_sandboxed", "warm_up"]


def __getattr__(name: str) -> Any:
    """Import the parent's side only when it is asked for; the child has no use for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from napari_medreasoner.imaging.sandbox import parent

    return getattr(parent, name)
