"""A deployment on this machine: one of its own, brought up for a measurement and gone after it, or one that runs."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from streaming.memory import Unmeasurable

ROOT = Path(__file__).parents[2]
PATIENCE = 300
BASE = "docker-compose.yml"


def say(text: str) -> None:
    """Progress; what was measured is on standard output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def docker(*arguments: str) -> str:
    """Standard output. Raises CalledProcessError."""
    return subprocess.run(["docker", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def healthy(container: str) -> bool:
    return docker("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"


class Deployment:
    """``overlays`` are compose files above the base one; ``workers`` the names of the services that run the demo."""

    def __init__(
        self, project: str, overlays: Sequence[str], workers: Sequence[str], environment: dict[str, str] | None = None
    ) -> None:
        files = [part for name in (BASE, *overlays) for part in ("-f", name)]
        self.project = project
        self.workers = workers
        self._command = ["docker", "compose", "-p", project, *files]
        self._environment = {**os.environ, "RABBITBAL_OPERATOR": "load test", **(environment or {})}
        self.routes: Path | None = None

    def compose(self, *arguments: str, timeout: float = PATIENCE) -> str:
        """Standard output. Raises Unmeasurable when the command fails."""
        try:
            return subprocess.run(
                [*self._command, *arguments],
                check=True, capture_output=True, text=True, cwd=ROOT, env=self._environment, timeout=timeout,
            ).stdout  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Unmeasurable(f"docker compose {' '.join(arguments[:3])}: nothing after {timeout:.0f} s") from error
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", "") or str(error)
            raise Unmeasurable(f"docker compose {' '.join(arguments[:3])} failed: {why[-2000:]}") from error

    def built(self) -> bool:
        """Whether all images are there."""
        images = sorted(set(self.compose("--profile", "operator", "config", "--images").split()))
        command = ["docker", "image", "inspect", *images]
        return (
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
        )

    @property
    def url(self) -> str:
        address = self.compose("port", "nginx", "8080").strip()
        if not address:
            raise Unmeasurable(f"the project {self.project!r} does not run here")
        return f"http://{address}"

    @property
    def dashboard(self) -> str:
        """Where the tap serves."""
        return f"http://{self.compose('port', 'tap', '8081').strip()}"

    def tap(self, path: str) -> Any:
        """What the tap answers. Raises OSError while it does not."""
        with urllib.request.urlopen(self.dashboard + path, timeout=30) as answer:
            return json.load(answer)

    def operate(self, *command: str) -> Any:
        """What the operator's command answers with --json."""
        said = self.compose("run", "--rm", "--no-deps", "-T", "operator", *command, "--json")
        return json.loads(said)

    def containers(self, service: str) -> list[str]:
        """Ids of those that run."""
        return self.compose("ps", "--quiet", service).split()

    def ask(self, page: str) -> dict[str, Any]:
        """One of the edge's own pages, which nginx does not pass on. There is one edge."""
        url = f"http://127.0.0.1:8000/_rabbitbal/{page}"
        script = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).read().decode())"
        answer: dict[str, Any] = json.loads(self.compose("exec", "-T", "edge", "python", "-c", script))
        return answer

    def table(self, text: str) -> None:
        """Give the edge this table of routes, and wait until it has it."""
        if self.routes is None:
            raise Unmeasurable("the routes of a deployment that is not our own are not changed")
        draft = self.routes / "routes.yaml.new"
        draft.write_text(text)
        draft.chmod(0o644)
        draft.replace(self.routes / "routes.yaml")
        digest, deadline = hashlib.sha256(text.encode()).hexdigest(), time.monotonic() + 20
        while (seen := self.ask("routes")).get("digest") != digest:
            if time.monotonic() > deadline:
                raise Unmeasurable(f"the edge does not take the table: {seen}")
            time.sleep(0.3)

    def rabbitmqctl(self, *command: str) -> str:
        return self.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", *command)

    def consumers(self, queue: str) -> int:
        lines = (line.split("\t") for line in self.rabbitmqctl("list_queues", "name", "consumers").splitlines())
        return next((int(line[1]) for line in lines if line[0] == queue), 0)

    def until(self, condition: Callable[[], object], what: str, patience: float = 60) -> None:
        """Raises Unmeasurable."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise Unmeasurable(f"not within {patience:.0f} s: {what}")
            time.sleep(0.5)

    def queues(self) -> dict[str, int]:
        """Messages of each queue, waiting or being run."""
        told = self.compose(
            "exec", "-T", "rabbitmq", "rabbitmqctl", "list_queues", "-q", "--no-table-headers", "name", "messages"
        )
        lines = (line.split("\t") for line in told.splitlines())
        return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}

    def empty(self, queue: str, patience: float = 60) -> None:
        """Wait until a queue has nothing more. Raises Unmeasurable."""
        deadline = time.monotonic() + patience
        while left := self.queues().get(queue, 0):
            if time.monotonic() > deadline:
                raise Unmeasurable(f"{queue} still has {left} messages")
            time.sleep(0.5)

    def runs(self, run: str) -> Counter[str]:
        """How many times each key that begins with ``run`` was started, by the logs of all workers."""
        lines = self.compose("logs", "--no-log-prefix", "--no-color", *self.workers).splitlines()
        return Counter(
            json.loads(line[line.index("{") :])["key"] for line in lines if '"ran"' in line and f'"{run}' in line
        )


@contextmanager
def own(
    overlays: Sequence[str],
    scale: dict[str, int],
    table: str,
    environment: dict[str, str] | None = None,
    *,
    build: bool,
) -> Iterator[Deployment]:
    """A deployment with a name, a port and a table of routes of its own; gone afterwards, data and all. Images that are
    not there are built; ``build`` builds them in any case."""
    with tempfile.TemporaryDirectory(prefix="rabbitbal-load-") as folder:
        routes = Path(folder)
        routes.chmod(0o755)
        (routes / "routes.yaml").write_text(table)
        (routes / "routes.yaml").chmod(0o644)
        settings = {
            "RABBITBAL_HTTP_PORT": "0",
            "RABBITBAL_DASHBOARD_PORT": "0",
            "RABBITBAL_EXPOSE_WORKER": "1",
            "RABBITBAL_ROUTES_DIR": folder,
        }
        workers = [name for name in scale if name.startswith("worker")]
        deployment = Deployment(
            f"rabbitbal-load-{uuid4().hex[:6]}", overlays, workers, {**settings, **(environment or {})}
        )
        deployment.routes = routes
        build = build or not deployment.built()
        say(f"starting {deployment.project}" + (", images first" if build else ""))
        try:
            if build:
                deployment.compose("--profile", "operator", "build", "--quiet", timeout=1800)
            sizes = [part for name, number in scale.items() for part in ("--scale", f"{name}={number}")]
            deployment.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "180", *sizes)
            yield deployment
        finally:
            say(f"removing {deployment.project}")
            deployment.compose("--profile", "operator", "down", "--volumes", "--timeout", "5")
