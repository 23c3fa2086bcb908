"""Files and intensities: reading images, what a model sees of them, writing masks."""

from napari_medreasoner.imaging.nifti import write_image, write_mask
from napari_medreasoner.imaging.reader import read_image
from napari_medreasoner.imaging.sandbox import read_sandboxed
from napari_medreasoner.imaging.volume import Volume

__all__ = ["Volume", "read_image", "read_sandboxed", "write_image", "write_mask"]
