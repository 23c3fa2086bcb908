"""Headless core: geometry, masks, answers, prompts, metrics, wire models and errors.

Needs the standard library, numpy, pydantic and SciPy (the distance transform of
`masks`); no Qt, no network library, no model library.
"""
