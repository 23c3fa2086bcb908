"""Findings out: each file the old one or the new one, read back before it counts."""
