"""Processor time of a container, by its cgroup (version 1 or 2)."""

import subprocess
from pathlib import Path

from streaming.memory import Unmeasurable


class Processor:
    """Of a container that runs on this machine."""

    def __init__(self, container: str) -> None:
        """Raises Unmeasurable."""
        try:
            told = subprocess.run(
                ["docker", "inspect", "--format", "{{.State.Pid}}", container],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unmeasurable(f"docker inspect failed: {getattr(error, 'stderr', '') or error}") from error
        listing = Path(f"/proc/{told.strip()}/cgroup")
        self._file = _clock(listing.read_text() if listing.exists() else "")

    def seconds(self) -> float:
        """That it has used so far, in all of its processes."""
        text = self._file.read_text()
        if self._file.name == "cpuacct.usage":
            return int(text) / 1e9
        return int(dict(line.split() for line in text.splitlines())["usage_usec"]) / 1e6


def _clock(listing: str) -> Path:
    for line in listing.splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            places = [f"/sys/fs/cgroup/{place}{path}/cpuacct.usage" for place in ("cpuacct", controllers)]
        elif controllers == "":
            places = [f"/sys/fs/cgroup{path}/cpu.stat"]
        else:
            continue
        for place in places:
            if Path(place).exists():
                return Path(place)
    raise Unmeasurable("the processor time of the container cannot be seen from here")
