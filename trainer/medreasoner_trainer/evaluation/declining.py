"""Refusals in a language model's own words, told from answers that only cannot be read."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["declined"]

_DECLINES: Final = re.compile(
    r"""
    \bI(?:\ am|'m)\ (?:so\ |very\ )?sorry\b | \bI\ apologi[sz]e\b | \bas\ an?\ AI\b
    | \bI(?:\ am|'m)\ (?:unable|not\ able|not\ allowed|not\ qualified)\b
    | \bI\ (?:can(?:\ ?no|')t|can\ not|could\ not|couldn't|won't|will\ not|must)
      \ (?:assist|help|answer|provide|give|offer|comply|decline|refuse|do\ that|diagnose
         |interpret|analy[sz]e|identify|locate|determine|find|see|tell|say)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_APOSTROPHES: Final = str.maketrans({"\u2019": "'", "`": "'"})
_SEARCHED: Final = 2000
"""Characters in which a refusal shows; a model that declines does so at once."""


def declined(text: str) -> str:
    """Find the words with which a model declines to answer.

    What it thinks aloud does not count: "I cannot see the border well" may come before a good
    answer, or before one that was cut short.

    Parameters
    ----------
    text : str
        A whole completion without usable coordinates.

    Returns
    -------
    str
        The line that says so; empty where none does.
    """
    before, opened, rest = text.partition("<think>")
    _, closed, after = rest.partition("</think>")
    said = before + "\n" + after if opened and closed else before
    for line in said[:_SEARCHED].translate(_APOSTROPHES).splitlines():
        if _DECLINES.search(line):
            return line.strip()
    return ""
