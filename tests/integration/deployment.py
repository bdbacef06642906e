"""A real deployment: docker-compose.yml in a project of its own, and everything that a test may do to it."""

import hashlib
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, ClassVar

from testcontainers.compose import DockerCompose
from testcontainers.core.docker_client import DockerClient

from integration.client import Address, get
from integration.polling import eventually

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ONE_SHOT = frozenset({"users", "topology", "certificates"})
TAIL = 150
PATIENCE = 90.0


class Compose(DockerCompose):
    """`docker compose` with this project's files. The settings are in an env file, so the project can be looked into
    by hand: `docker compose --env-file <file> logs`."""

    def __init__(self, overlays: Iterable[str], env_file: Path) -> None:
        env_files = [str(env_file)]
        if (ROOT / ".env").exists():
            # The machine's own: base image, CA bundle.
            env_files.insert(0, ".env")
        self.files = ["docker-compose.yml", *overlays]
        self.env_files = env_files
        super().__init__(str(ROOT), self.files, env_file=env_files)

    def run(self, *command: str) -> str:
        """Raises CalledProcessError; testcontainers logs what the command said."""
        return str(self._run_command([*self.docker_compose_command(), *command]).stdout.decode())


@dataclass(frozen=True)
class Container:
    """One container as it was when it was looked at."""

    id: str
    name: str
    service: str
    state: str
    health: str | None
    started_at: str
    exit_code: int
    addresses: dict[str, str]
    ports: dict[str, Any]

    @property
    def ready(self) -> bool:
        return self.state == "running" and self.health in (None, "healthy")


class Deployment:
    """A project of compose. `up` starts it, `down` removes it and its volumes. ``groups`` are workers that an overlay
    adds: their service and how many."""

    running: ClassVar[list["Deployment"]] = []

    def __init__(
        self,
        directory: Path,
        overlays: tuple[str, ...] = (),
        groups: Mapping[str, int] | None = None,
        **settings: str,
    ) -> None:
        self.project = f"rabbitbal-test-{token_hex(4)}"
        self._routes = directory / f"{self.project}-routes"
        # A port of 0: the engine chooses a free one.
        self._original = {
            "COMPOSE_PROJECT_NAME": self.project,
            "RABBITBAL_HTTP_PORT": "0",
            "RABBITBAL_DASHBOARD_PORT": "0",
            "RABBITBAL_EXPOSE_WORKER": "1",
            "RABBITBAL_ROUTES_DIR": str(self._routes),
            **settings,
        }
        self._settings = dict(self._original)
        self._env_file = directory / f"{self.project}.env"
        self._write_settings()
        self._compose = Compose(overlays, self._env_file)
        self._docker = DockerClient().client
        self._groups = dict(groups or {})
        self._scale = {"worker": 1, "edge": 1, **self._groups}
        self._disturbed = False
        self.http: Address = ("127.0.0.1", 0)

    # --- the whole

    def build(self, *services: str) -> None:
        self._compose.run("--profile", "operator", "build", "--quiet", *services)

    def up(self, workers: int = 1) -> None:
        self._scale["worker"] = workers
        self._routes.mkdir(mode=0o755, exist_ok=True)
        self._write_routes((ROOT / "compose" / "routes" / "routes.yaml").read_bytes())
        Deployment.running.append(self)
        self._compose.run("up", "--wait", "--no-build", *self._scaling())
        self._find_port()
        self.answering()

    def down(self) -> None:
        try:
            # Whatever hangs must not hang the suite.
            for container in self.containers():
                self.unpause(container)
            self._compose.run("down", "--volumes", "--timeout", "5", "--remove-orphans")
        finally:
            Deployment.running.remove(self)
            self._env_file.unlink()

    def ready(self, workers: int, edges: int = 1, **groups: int) -> None:
        """Mend what a test has broken and have so many workers and edges, ready to serve. A group that is not named
        (`worker_north` for worker-north) is as large as it was at the start."""
        wanted = {"worker": workers, "edge": edges, **self._groups}
        wanted |= {name.replace("_", "-"): number for name, number in groups.items()}
        if self._disturbed:
            for container in self.containers():
                if container.state == "paused":
                    self.unpause(container)
                elif container.state == "exited" and container.service not in ONE_SHOT:
                    self.start(container)
        if self._scale != wanted:
            self.scale(**wanted)
        if self._disturbed:
            self._settled()
            self._disturbed = False

    def _settled(self) -> None:
        def unready() -> list[str]:
            return [f"{c.name} is {c.state}, {c.health}" for c in self.containers() if not self._is_done(c)]

        eventually(lambda: not unready(), "every container is ready", PATIENCE, 0.25)
        # A health check is some seconds old; the broker knows who consumes now.
        wanted = self._scale["worker"]
        eventually(lambda: self.consumers() == wanted, f"{wanted} workers consume", PATIENCE, 0.25)
        self.answering()

    def _is_done(self, container: Container) -> bool:
        if container.service in ONE_SHOT:
            return container.state == "exited" and container.exit_code == 0
        return container.ready

    def answering(self) -> None:
        """Some application's answer comes through nginx, whatever it is."""
        eventually(
            lambda: (answer := get(self.http, "/", 10)).status and not answer.reason, "GET / is answered", PATIENCE
        )

    def scale(self, **services: int) -> None:
        """`docker compose up --scale`, as an operator does it; does not wait until new ones are ready."""
        self._disturbed = True
        self._scale |= {name.replace("_", "-"): number for name, number in services.items()}
        self._compose.run("up", "--detach", "--no-build", "--no-deps", "--no-recreate", *self._scaling(), *self._scale)

    def change(self, **settings: str) -> None:
        """Workers with the settings that the deployment began with, but for these; all else stays as it is."""
        wanted = self._original | settings
        if wanted == self._settings:
            return
        self._settings = wanted
        self._write_settings()
        self._disturbed = True
        self._compose.run(
            "up", "--detach", "--no-build", "--no-deps", "--scale", f"worker={self._scale['worker']}", "worker"
        )
        self._settled()
        self._disturbed = False

    def build_example(self, overlay: str) -> str:
        """The name of the worker's image in an overlay, built on the worker's own."""
        compose = Compose((overlay,), self._env_file)
        compose.run("build", "--quiet", "worker")
        return str(json.loads(compose.run("config", "--format", "json"))["services"]["worker"]["image"])

    def declare(self) -> None:
        """Run the one-shot job again that declares the topology."""
        (job,) = self.containers("topology")
        self._handle(job).start()
        eventually(
            lambda: [c.exit_code for c in self.containers("topology") if c.state == "exited"], "the job is through", 30
        )

    def _scaling(self) -> list[str]:
        return [part for name, number in self._scale.items() for part in ("--scale", f"{name}={number}")]

    def _write_settings(self) -> None:
        self._env_file.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))

    # --- routes and pools

    def route(self, table: str) -> None:
        """Give the edges this table, as an editor would, and wait until all of them have it."""
        self.edit_routes(table)
        digest = hashlib.sha256(table.encode()).hexdigest()
        eventually(
            lambda: all(self.table(edge)["digest"] == digest for edge in self.containers("edge")),
            "every edge has the table",
        )

    def edit_routes(self, table: str) -> None:
        self._write_routes(table.encode())

    def _write_routes(self, table: bytes) -> None:
        draft = self._routes / "routes.yaml.new"
        draft.write_bytes(table)
        draft.chmod(0o644)
        draft.replace(self._routes / "routes.yaml")

    def table(self, edge: Container | None = None) -> dict[str, Any]:
        """What an edge says of its table of routes."""
        return self._ask(edge or self.container("edge"), "routes")

    def operator(self, *command: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """`rabbitbal COMMAND` in the operator's container, whatever comes of it."""
        return subprocess.run(
            self._operator(*command),
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def operating(self, *command: str) -> "subprocess.Popen[str]":
        """`just rabbitbal COMMAND` while it goes on, in a process group of its own, as in a shell with its input and
        output redirected. The caller waits for its end."""
        pipe = subprocess.PIPE
        files = {"COMPOSE_FILE": ":".join(self._compose.files), "COMPOSE_ENV_FILES": ",".join(self._compose.env_files)}
        return subprocess.Popen(
            [str(ROOT / "compose" / "base" / "rabbitbal.sh"), *command],
            env=os.environ | files,
            cwd=ROOT,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    def _operator(self, *command: str) -> list[str]:
        return [*self._compose.docker_compose_command(), "run", "--rm", "--no-deps", "-T", "operator", *command]

    def bind_directly(self, key: str, pool: str) -> None:
        """A binding without the command's start, which takes a second."""
        script = (
            "import asyncio; from pathlib import Path; from rabbitbal.runtime.broker import Server, Topologist\n"
            "async def bind():\n"
            "    secret = Path('/run/secrets/topology/password')\n"
            "    async with Topologist(Server('amqp://topology@rabbitmq:5672/', secret)) as broker:\n"
            f"        await broker.route('request.{key}', '{pool}')\n"
            "asyncio.run(bind())"
        )
        compose = self._compose
        compose.run("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "topology", "-c", script)

    def operate(self, *command: str) -> Any:
        """The same with --json: its answer. Raises AssertionError when it fails."""
        done = self.operator(*command, "--json")
        if done.returncode != 0:
            raise AssertionError(f"rabbitbal {' '.join(command)}: status {done.returncode}: {done.stderr}{done.stdout}")
        return json.loads(done.stdout)

    @property
    def dashboard(self) -> Address:
        """Where the tap's page is now: the engine may choose another port when it starts the tap again."""
        return ("127.0.0.1", int(self.container("tap").ports["8081/tcp"][0]["HostPort"]))

    def _find_port(self) -> None:
        (nginx,) = self.containers("nginx")
        self.http = ("127.0.0.1", int(nginx.ports["8080/tcp"][0]["HostPort"]))

    # --- containers

    def containers(self, service: str | None = None) -> list[Container]:
        """All of the project, also those that do not run."""
        labels = [f"com.docker.compose.project={self.project}"]
        if service is not None:
            labels.append(f"com.docker.compose.service={service}")
        found = self._docker.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        return sorted((_seen(container.attrs) for container in found), key=lambda container: container.name)

    def container(self, service: str) -> Container:
        (container,) = self.containers(service)
        return container

    def workers(self) -> list[Container]:
        return self.containers("worker")

    def worker_of(self, instance: str) -> Container:
        """The container of a worker's id, as responses name it."""
        (container,) = [worker for worker in self.workers() if worker.id.startswith(instance.split("-")[0])]
        return container

    def kill(self, container: Container, signal: str = "SIGKILL") -> None:
        self._disturbed = True
        self._handle(container).kill(signal=signal)

    def stop(self, container: Container) -> None:
        """`docker stop`, with the patience that the compose file grants."""
        self._disturbed = True
        self._handle(container).stop()

    def start(self, container: Container) -> None:
        self._disturbed = True
        self._handle(container).start()

    def restart(self, container: Container) -> None:
        self._disturbed = True
        self._handle(container).restart()

    def pause(self, container: Container) -> None:
        self._disturbed = True
        self._handle(container).pause()

    def unpause(self, container: Container) -> None:
        if self._look(container).state == "paused":
            self._handle(container).unpause()

    def exec(self, container: Container, *command: str, user: str = "") -> str:
        """Standard output. Raises AssertionError when the command fails."""
        code, (out, err) = self._handle(container).exec_run(list(command), user=user, demux=True)
        if code != 0:
            raise AssertionError(f"{command} in {container.name}: status {code}: {(err or b'').decode()}")
        return (out or b"").decode()

    def pids(self, container: Container) -> set[str]:
        """The host's numbers of the processes in it."""
        top = self._handle(container).top()
        return {process[top["Titles"].index("PID")] for process in top["Processes"]}

    def network(self, name: str) -> dict[str, Any]:
        return dict(self._docker.networks.get(f"{self.project}_{name}").attrs)

    def look(self, container: Container) -> Container:
        """The same container as it is now."""
        return self._look(container)

    def gone(self, container: Container) -> bool:
        return all(other.id != container.id for other in self.containers(container.service))

    def _look(self, container: Container) -> Container:
        return _seen(self._handle(container).attrs)

    def _handle(self, container: Container) -> Any:
        return self._docker.containers.get(container.id)

    # --- what they say

    def logs(self, container: Container) -> list[str]:
        return str(self._handle(container).logs().decode(errors="replace")).splitlines()

    def events(self, container: Container, name: str) -> list[dict[str, Any]]:
        """The JSON lines of one event."""
        lines = (line for line in self.logs(container) if f'"event": "{name}"' in line)
        return [json.loads(line) for line in lines]

    def keys(self, event: str) -> Counter[str]:
        """How often the application said this of each key, in all workers that exist or are stopped."""
        return Counter(line["key"] for worker in self.workers() for line in self.events(worker, event))

    def runs(self) -> Counter[str]:
        return self.keys("ran")

    def runs_everywhere(self) -> Counter[str]:
        """The same, with the groups of workers that an overlay adds."""
        found = self.runs()
        for group in self._groups:
            for worker in self.containers(group):
                found.update(line["key"] for line in self.events(worker, "ran"))
        return found

    def events_of(self, service: str, event: str, key: str) -> int:
        """How many of these events the containers of a service have told of keys that begin so."""
        lines = (line for container in self.containers(service) for line in self.events(container, event))
        return sum(line["key"].startswith(key) for line in lines)

    def notices(self, event: str, who: str) -> list[dict[str, Any]]:
        """What the tap was told by somebody."""
        return [line for line in self.events(self.container("tap"), event) if line.get("who") == who]

    def runs_by_worker(self, key: str) -> Counter[str]:
        """How often the request with this key was started, by the container's id."""
        return Counter(w.id for w in self.workers() for line in self.events(w, "ran") if line["key"] == key)

    def runner(self, key: str) -> Container:
        """The worker that runs the request with this key, once one does."""
        return self.runners(key)[key]

    def runners(self, *keys: str) -> dict[str, Container]:
        """The same for each of several, once all run. The logs are read once for all: that takes a moment."""

        def found() -> dict[str, Container]:
            groups = [worker for group in self._groups for worker in self.containers(group)]
            ran = {line["key"]: w for w in (*groups, *self.workers()) for line in self.events(w, "ran")}
            return {key: ran[key] for key in keys} if ran.keys() >= set(keys) else {}

        return eventually(found, f"workers run {', '.join(keys)}")

    def access(self, key: str) -> list[dict[str, Any]]:
        """The tap's lines on requests with this key in their target."""
        return [line for line in self.access_log() if f"key={key}" in (line.get("target") or "")]

    def access_log(self) -> list[dict[str, Any]]:
        return self.events(self.container("tap"), "access")

    def ended(self, key: str) -> dict[str, Any]:
        """The one access line of this request."""
        (line,) = eventually(lambda: self.access(key), f"the tap logs {key}")
        return line

    def stats(self, edge: Container | None = None) -> dict[str, Any]:
        return self._ask(edge or self.container("edge"), "stats")

    def _ask(self, edge: Container, page: str) -> dict[str, Any]:
        """One of an edge's own pages, which nginx does not pass on."""
        url = f"http://127.0.0.1:8000/_rabbitbal/{page}"
        script = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).read().decode())"
        answer: dict[str, Any] = json.loads(self.exec(edge, "python", "-c", script))
        return answer

    def report(self) -> list[tuple[str, str]]:
        """The ends of all logs, for people to read. The tap says the same for every good request: it is thinned."""
        return [
            (f"{c.name}: {c.state}, {c.health}", "\n".join(_thinned(self.logs(c))[-TAIL:])) for c in self.containers()
        ]

    # --- the broker

    def rabbitmqctl(self, *command: str) -> str:
        return self.exec(self.container("rabbitmq"), "rabbitmqctl", "--quiet", *command)

    def queues(self) -> dict[str, dict[str, int]]:
        columns = ("messages_ready", "messages_unacknowledged", "consumers")
        rows = [line.split("\t") for line in self.rabbitmqctl("list_queues", "name", *columns).splitlines()[1:]]
        return {row[0]: dict(zip(columns, map(int, row[1:]), strict=True)) for row in rows}

    def consumers(self) -> int:
        """Of the default pool: the workers that the broker knows to be ready. None while the broker starts."""
        try:
            return self.queues().get("pool.default", {}).get("consumers", 0)
        except AssertionError:
            return -1


def _seen(attrs: dict[str, Any]) -> Container:
    state, networks = attrs["State"], attrs["NetworkSettings"]["Networks"]
    return Container(
        id=attrs["Id"],
        name=attrs["Name"].lstrip("/"),
        service=attrs["Config"]["Labels"]["com.docker.compose.service"],
        state=state["Status"],
        health=state["Health"]["Status"] if "Health" in state else None,
        started_at=state["StartedAt"],
        exit_code=state["ExitCode"],
        addresses={name.rpartition("_")[2]: network["IPAddress"] for name, network in networks.items()},
        ports=attrs["NetworkSettings"]["Ports"] or {},
    )


def _thinned(lines: list[str]) -> list[str]:
    return [line for line in lines if '"event": "access"' not in line or '"reason": null' not in line]


def moment(timestamp: str) -> float:
    """Seconds since the epoch, of a log line's timestamp."""
    return datetime.fromisoformat(timestamp).timestamp()


def plain_environment() -> None:
    """What the caller's shell exports would win over a deployment's own settings."""
    for name in [name for name in os.environ if name.startswith(("RABBITBAL_", "COMPOSE_"))]:
        del os.environ[name]


class Meanwhile:
    """Something slow that happens beside the test's own steps. Raises on `wait` what it raised."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._error: Exception | None = None
        self._action = action
        self.began = time.time()
        self.ended = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> float:
        """How long it took, in seconds."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self.ended - self.began

    def _run(self) -> None:
        try:
            self._action()
        except Exception as error:
            self._error = error
        self.ended = time.time()
