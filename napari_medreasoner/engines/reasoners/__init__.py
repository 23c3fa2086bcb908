"""Reasoners that are vision-language models."""
