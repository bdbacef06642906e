"""What the containers of a project have in memory, by their cgroups (version 1 or 2), sampled while something runs."""

import asyncio
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 1 << 20
SERVICES = ("nginx", "edge", "rabbitmq", "worker")
IDLE_SAMPLES = 20
PERIOD = 0.05


class Unmeasurable(Exception):
    """The text says what is missing."""


@dataclass(frozen=True)
class Use:
    """Bytes. ``own``: anonymous memory and files on a tmpfs, which nothing but their owner can free. ``total``: all
    that counts for the container's limit, files that the kernel has cached too."""

    own: int = 0
    total: int = 0

    def most(self, other: "Use") -> "Use":
        return Use(max(self.own, other.own), max(self.total, other.total))


@dataclass(frozen=True)
class Container:
    service: str
    name: str
    directory: Path
    """Its cgroup, of the memory controller."""

    def use(self) -> Use:
        """Raises OSError when the container is gone."""
        text = (self.directory / "memory.stat").read_text()
        stat = {name: int(value) for name, value in map(str.split, text.splitlines())}
        if "anon" in stat:  # version 2
            total = int((self.directory / "memory.current").read_text())
            return Use(stat["anon"] + stat["shmem"], total)
        total = int((self.directory / "memory.usage_in_bytes").read_text())
        return Use(stat["total_rss"] + stat["total_shmem"], total)


def containers(project: str, services: tuple[str, ...] = SERVICES) -> list[Container]:
    """Those that run, of these services; by default those that carry the data. Raises Unmeasurable."""
    labels = (f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False")
    listing = _docker("ps", "--quiet", *(f"--filter=label={label}" for label in labels)).split()
    if not listing:
        raise Unmeasurable(f"no container of the project {project!r} runs here")
    form = '{{index .Config.Labels "com.docker.compose.service"}} {{.Name}} {{.State.Pid}}'
    lines = [line.split() for line in _docker("inspect", "--format", form, *listing).splitlines()]
    return [
        Container(service, name.lstrip("/"), _cgroup(pid))
        for service, name, pid in lines
        if service in services and pid != "0"  # 0: it is just being restarted
    ]


def _docker(*arguments: str) -> str:
    try:
        return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unmeasurable(f"docker {arguments[0]} failed: {getattr(error, 'stderr', '') or error}") from error


def _cgroup(pid: str) -> Path:
    listing = Path(f"/proc/{pid}/cgroup")
    for line in listing.read_text().splitlines() if listing.exists() else ():
        _, controllers, path = line.split(":", 2)
        for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
            directory = Path(root + path)
            if controllers in ("memory", "") and (directory / "memory.stat").exists():
                return directory
    raise Unmeasurable(f"the cgroup of process {pid} cannot be seen from here")


class Memory:
    """A context: what the containers had before, and their peaks meanwhile. A container that goes stops counting, one
    that comes is not seen."""

    def __init__(self, project: str) -> None:
        self._containers = containers(project)
        self._idle: dict[str, Use] = defaultdict(Use)
        self._peak: dict[str, Use] = defaultdict(Use)

    async def __aenter__(self) -> Self:
        seen: dict[str, list[Use]] = defaultdict(list)
        for _ in range(IDLE_SAMPLES):
            for name, use in self._look():
                seen[name].append(use)
            await asyncio.sleep(PERIOD)
        for name, uses in seen.items():
            self._idle[name] = sorted(uses, key=lambda use: use.own)[len(uses) // 2]
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _sample(self) -> None:
        while True:
            for name, use in self._look():
                self._peak[name] = self._peak[name].most(use)
            await asyncio.sleep(PERIOD)

    def _look(self) -> list[tuple[str, Use]]:
        looks = []
        for container in self._containers:
            try:
                looks.append((container.name, container.use()))
            except OSError:
                continue
        return looks

    def growth(self) -> dict[str, int]:
        """Bytes of their own above idle, by service: the container that grew most."""
        grown: dict[str, int] = {}
        for container in self._containers:
            more = self._peak[container.name].own - self._idle[container.name].own
            grown[container.service] = max(grown.get(container.service, more), more)
        return grown

    def table(self) -> str:
        """Markdown. Of a service with several containers, the one that grew most."""
        lines = [
            "| container | own idle | own peak | own more | total idle | total peak | total more |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        growth = self.growth()
        for service in (service for service in SERVICES if service in growth):
            mine = [container for container in self._containers if container.service == service]
            name = max((c.name for c in mine), key=lambda name: self._peak[name].own - self._idle[name].own)
            idle, peak = self._idle[name], self._peak[name]
            figures = (idle.own, peak.own, peak.own - idle.own, idle.total, peak.total, peak.total - idle.total)
            which = service if len(mine) == 1 else f"{service} (most of {len(mine)})"
            lines.append(f"| {which} | {' | '.join(f'{figure / MIB:.1f}' for figure in figures)} |")
        return "\n".join([*lines, "", "MiB; own: anonymous memory and tmpfs, total: with cached files"])
