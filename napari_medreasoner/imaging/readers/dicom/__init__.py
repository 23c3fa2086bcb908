"""DICOM in, with pydicom: files, series, folders."""
