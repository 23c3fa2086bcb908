"""Segmenters (ASM) that load weights: MedSAM2, MedSAM, SAM-Med2D; they need the extra `models`."""
