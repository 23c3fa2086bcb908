"""Seconds `parse_answer` takes on hostile text, over `str.count` on the same text.

The ratio stays the same from 0.1 to 10 million characters when the work is linear.
Run: `python benchmarks/parsing.py`.
"""

from __future__ import annotations

from contextlib import suppress
from timeit import repeat

from napari_medreasoner.core.errors import AnswerError
from napari_medreasoner.core.grounding import parse_answer

_UNITS = ("<think>", "<answer>", "<answer>{", "{'", "</answer><think>")
_SIZES = (10**5, 10**6, 10**7)


def _parse(text: str) -> None:
    with suppress(AnswerError):
        parse_answer(text)


def main() -> None:
    """Print one row a hostile unit, one column a text length."""
    print(f"{'repeated':<20}" + "".join(f"{size:>14,}" for size in _SIZES))
    for unit in _UNITS:
        ratios = []
        for size in _SIZES:
            text = unit * (size // len(unit))
            parse = min(repeat(lambda text=text: _parse(text), number=1, repeat=5))
            scan = min(repeat(lambda text=text: text.count("</answer>"), number=1, repeat=5))
            ratios.append(parse / scan)
        print(f"{unit:<20}" + "".join(f"{ratio:>14.1f}" for ratio in ratios))


if __name__ == "__main__":
    main()
