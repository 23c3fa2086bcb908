"""Engines that ship with the project and need neither download nor torch."""
