"""Schemathesis on the server's own OpenAPI description."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Final

from backend import Backend
from counting import Counted

_MAIN: Final = "from schemathesis.cli import schemathesis; schemathesis()"


def schema(examples: int) -> list[Counted]:
    """Let schemathesis send what the description allows, and what it does not."""
    with Backend() as backend:
        run = subprocess.run(  # noqa: S603 - our own command
            [
                *(sys.executable, "-c", _MAIN, "run", f"{backend.url}/openapi.json"),
                *("--header", f"Authorization: Bearer {backend.token}"),
                *("--max-examples", str(examples), "--seed", "0", "--no-color"),
                *("--checks", "not_a_server_error,status_code_conformance"),
                *("--checks", "content_type_conformance,response_schema_conformance"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        alive = backend.process.poll() is None
    found = re.search(r"(\d+) generated(?:, (\d+) found)?.*", run.stdout)
    figure = found.group(0) if found else run.stdout.strip().splitlines()[-1]
    if run.returncode:
        sys.stdout.write(run.stdout)
    return [
        Counted("schemathesis on our description", figure, run.returncode == 0),
        Counted("server alive after it", "yes" if alive else "no", alive),
    ]
