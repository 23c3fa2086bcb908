"""DICOM segmentations, made in a process of their own: their sources are files nobody vouches for."""
