"""What a server withstands, counted: `python benchmarks/hardening [PART ...]`.

Everything runs against real `medreasoner serve` processes on this machine. Ends with exit
code 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from canaries import canaries
from counting import Counted, show
from crowd import crowd
from faults import cancels, kills
from gates import gates
from schema import schema
from slow import slow
from soak import soak


def main() -> int:
    """Run the parts and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="all when none is named")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak")
    parser.add_argument("--examples", type=int, default=200, help="of schemathesis, per route")
    given = parser.parse_args()
    parts: dict[str, Callable[[], list[Counted]]] = {
        "gates": gates,
        "canaries": canaries,
        "crowd": crowd,
        "kills": kills,
        "cancels": cancels,
        "slow": slow,
        "schema": partial(schema, given.examples),
        "soak": partial(soak, given.minutes),
    }
    if unknown := set(given.parts) - set(parts):
        parser.error(f"there is no part {min(unknown)}; choose of: {', '.join(parts)}")
    results = []
    for name in given.parts or parts:
        counted = parts[name]()
        show(counted)
        results += counted
    return 0 if all(result.holds for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
