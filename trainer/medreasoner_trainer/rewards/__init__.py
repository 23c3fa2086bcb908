"""Rewards for grounding answers: pure functions of a completion and the true box and points.

README.md beside this file has every formula, how the two variants differ, and each place where
`released` departs from the authors' released code, with the reason.
"""
