"""Ask a medical image a clinical question and get reasoning, a box, two points and a mask.

Importing this package pulls in no Qt, no napari and no torch. Research use only.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("napari-medreasoner")
