"""Engines that ship with the project and need no download: the honest baselines."""
