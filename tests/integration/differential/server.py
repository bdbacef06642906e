"""The application under uvicorn, as a process: what the deployment is compared with."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from integration.client import Address
from integration.polling import eventually

# What uvicorn would add or believe by itself, and nobody asked for.
QUIET = ("--no-access-log", "--no-server-header", "--no-date-header", "--no-proxy-headers")


@contextmanager
def uvicorn(app: str, app_dir: str, log: Path) -> Iterator[Address]:
    """``app`` on a free port of the loopback, with the parser of uvicorn's own extras. It prints to ``log``."""
    command = [sys.executable, "-m", "uvicorn", app, "--app-dir", app_dir, "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--http", "httptools", "--loop", "uvloop", *QUIET], stdout=output, stderr=subprocess.STDOUT
        )

    def port() -> int:
        assert process.poll() is None, log.read_text()
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())
        return int(found[1]) if found else 0

    try:
        yield "127.0.0.1", eventually(port, "uvicorn listens", 30)
    finally:
        process.kill()
        process.wait()
