"""That a deployment has come through whole."""

import contextlib
import socket
import time
from secrets import token_hex

from integration.client import Call, get
from integration.deployment import Container, Deployment
from integration.polling import eventually

DEFECTS = ("edge.defect", "worker.defect", "tap.defect")
ESCAPED, NEWLINE = "\\n", "\n"
SHOWN = 3
PATIENCE = 30.0
# Less than any timeout of a request.
AT_ONCE = 2.5


class Health:
    """Looks at the deployment before, and compares."""

    def __init__(self, deployment: Deployment, slots: int) -> None:
        self._deployment = deployment
        self._slots = slots
        self._before = self._lives()
        self._complaints = self._complained()

    def check(self) -> None:
        """Nothing was restarted, nothing is pending, every slot is free, the log goes on, nobody met a defect."""
        deployment = self._deployment
        assert self._lives() == self._before
        for edge in deployment.containers("edge"):
            eventually(lambda edge=edge: deployment.stats(edge)["pending"] == 0, "nothing is pending", PATIENCE)  # type: ignore[misc]
        # What is left over may take its time.
        eventually(self._fill_the_slots, f"{self._slots} requests run at once", PATIENCE)
        key = token_hex(4)
        assert get(deployment.http, f"/whoami?key={key}").status == 200
        assert deployment.ended(key)["status"] == 200
        complaints = self._complained() - self._complaints
        assert not complaints, "\n".join([f"{len(complaints)} defects or tracebacks", *sorted(complaints)[:SHOWN]])

    def _complained(self) -> set[str]:
        """Every line of a log that tells of a defect, or is the beginning of a traceback outside the log's form."""
        return {
            f"{container.name}: {line.replace(ESCAPED, NEWLINE)}"
            for container in self._deployment.containers()
            for line in self._deployment.logs(container)
            if any(name in line for name in DEFECTS) or line.startswith("Traceback ")
        }

    def _lives(self) -> set[tuple[str, str, str, str]]:
        return {(c.id, c.service, c.state, c.started_at) for c in self._deployment.containers()}

    def _fill_the_slots(self) -> bool:
        """As many requests as there are slots run at once, and end when their clients leave."""
        deployment, keys = self._deployment, {token_hex(4) for _ in range(self._slots)}
        with contextlib.ExitStack() as stack:
            for key in keys:
                connection = stack.enter_context(socket.create_connection(deployment.http, timeout=5))
                connection.sendall(Call(f"/probe/hold?key={key}").encode(deployment.http))
            until = time.monotonic() + AT_ONCE
            while time.monotonic() < until and not deployment.runs().keys() >= keys:
                time.sleep(0.1)
            running = keys & deployment.runs().keys()
        eventually(lambda: deployment.keys("cancelled").keys() >= running, "all of them are cancelled", PATIENCE)
        return running == keys


def instance(deployment: Deployment, service: str) -> tuple[Container, str]:
    """A container of that service, and the id that it has among edges or workers, by its queue's name."""
    container = deployment.containers(service)[0]
    (queue,) = [name for name in deployment.queues() if name.startswith(f"{service}.{container.id[:12]}")]
    return container, queue.partition(".")[2]
