"""The applications of the tests under uvicorn, as a process: what the deployment is compared with."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from integration.client import Address
from integration.polling import eventually

PACKAGES = ("uvicorn", "websockets", "click", "h11")


@contextmanager
def uvicorn(app: str, app_dir: str, log: Path) -> Iterator[Address]:
    """``app`` on a free port of the loopback, with uvicorn's own choice of WebSocket implementation."""
    command = [sys.executable, "-m", "uvicorn", app, "--app-dir", app_dir, "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--no-access-log"], stdout=output, stderr=subprocess.STDOUT)

    def port() -> int:
        assert process.poll() is None, log.read_text()
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())
        return int(found[1]) if found else 0

    try:
        yield "127.0.0.1", eventually(port, "uvicorn listens", 30)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def copy_uvicorn(target: Path) -> None:
    """uvicorn and what it needs, for a container without it: the packages of this environment, which need no
    compiled part to run."""
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent
        shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
