"""Scoring a reasoner and a segmenter on a UMRG data set: cases, summary, tables, report."""
