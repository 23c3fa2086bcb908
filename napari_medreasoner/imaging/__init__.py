"""Files and intensities: reading images, what a model sees of them, writing findings."""

from napari_medreasoner.imaging.readers.reader import read_image
from napari_medreasoner.imaging.sandbox import read_sandboxed
from napari_medreasoner.imaging.volume import Volume
from napari_medreasoner.imaging.writers.formats import write_image, write_segments
from napari_medreasoner.imaging.writers.segment import Segment

__all__ = ["Segment", "Volume", "read_image", "read_sandboxed", "write_image", "write_segments"]
