"""The command line: `medreasoner demo | ask | serve | doctor`."""

from napari_medreasoner.cli.app import main

__all__ = ["main"]
