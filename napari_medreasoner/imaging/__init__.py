"""Files and intensities: reading images, what a model sees of them, writing masks."""
