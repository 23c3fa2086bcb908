"""DICOM segmentations, made in a process that reads their untrusted sources."""
