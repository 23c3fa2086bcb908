"""Files nobody vouches for, opened in a process of their own."""

from napari_medreasoner.imaging.sandbox.parent import read_sandboxed

__all__ = ["read_sandboxed"]
