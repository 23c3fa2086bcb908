import subprocess
import sys

SCRIPT = """\
import logging, warnings
from napari_medreasoner.server.logs import log_to_stderr

log_to_stderr("canary-token")
logging.info("started with %s", "canary-token")
warnings.warn("canary-token")
try:
    raise ValueError("canary-token")
except ValueError:
    logging.exception("failed")
"""


def test_the_token_is_blotted_out_of_messages_warnings_and_tracebacks():
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == ""
    assert "started with [secret]" in ran.stderr
    assert "ValueError: [secret]" in ran.stderr
    assert "canary-token" not in ran.stderr
