import json
import subprocess
import sys

SCRIPT = """\
import logging, warnings
from napari_medreasoner.server.logs import log_to_stderr

log_to_stderr("canary-token")
logging.info("started with %s", "canary-token")
warnings.warn("canary-token")
try:
    raise ValueError("canary-question")
except ValueError:
    logging.exception("failed")
"""


def test_logs_are_json_lines_without_the_token_or_what_an_exception_says():
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == ""
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["INFO", "WARNING", "ERROR"]
    assert lines[0]["message"] == "started with [secret]"
    (failure,) = lines[2]["exceptions"]
    assert failure["type"] == "ValueError"
    assert failure["frames"] == ["<string>:8 <module>"]
    assert "canary" not in ran.stderr
