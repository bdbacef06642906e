"""Workers as the broker sees them."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.management import FIGURES_LAG, Management
from rabbitbal.operator.pools import members_of
from rabbitbal.wire import topology

PERIOD = 0.25
MOST_NAMED = 10


@dataclass
class Share:
    """What a worker gives to one pool. ``partitions`` are those of a sticky pool that it owns."""

    pool: str
    slots: int = 0
    priority: int = 0
    partitions: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.pool}:{self.slots}" + (f":{self.priority}" if self.priority else "")
        return text + (f" ({len(self.partitions)} partitions)" if self.partitions else "")

    def shown(self) -> dict[str, object]:
        return {"pool": self.pool, "slots": self.slots, "priority": self.priority, "partitions": self.partitions}


@dataclass
class Worker:
    """``running`` counts requests in hand, as the broker counted them up to ten seconds ago. ``since`` is when the
    worker connected, in seconds since the Unix epoch."""

    name: str
    running: int = 0
    since: float | None = None
    shares: list[Share] = field(default_factory=list)

    @property
    def connected(self) -> str | None:
        """RFC 3339, UTC."""
        if self.since is None:
            return None
        return datetime.fromtimestamp(self.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def shown(self) -> dict[str, object]:
        return {
            "worker": self.name,
            "running": self.running,
            "since": self.connected,
            "pools": [share.shown() for share in self.shares],
        }


def names_of(management: Management) -> list[str]:
    """The ids of the workers that are connected, also of those that serve no pool."""
    prefix = topology.worker_queue("")
    names = (queue.name for queue in management.queues())
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def workers_of(management: Management) -> list[Worker]:
    """All that are connected, in the order of their names."""
    found = {name: Worker(name) for name in names_of(management)}
    shares: dict[tuple[str, str], Share] = {}
    for member in members_of(management):
        worker = found.setdefault(member.worker, Worker(member.worker))
        share = shares.get((member.worker, member.pool))
        if share is None:
            share = shares[member.worker, member.pool] = Share(member.pool)
            worker.shares.append(share)
        if member.partition is None:
            share.slots, share.priority = member.slots, member.priority
        else:
            share.partitions.append(member.partition)
    in_hand = management.unacknowledged()
    for connection in management.connections():
        name = connection.given.removesuffix(_CONSUMES)
        if name in found and name != connection.given:
            found[name].running += in_hand.get(connection.name, 0)
            found[name].since = connection.since
    for worker in found.values():
        worker.shares.sort(key=lambda share: share.pool)
        for share in worker.shares:
            share.partitions.sort()
    return [found[name] for name in sorted(found)]


# What a worker calls the connection on which it gets requests.
_CONSUMES = " consumes"


def resolve(name: str, names: list[str]) -> str:
    """The worker whose id is this, or the only one whose id begins so. Raises Failed."""
    if name in names:
        return name
    found = [each for each in names if each.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failed(f"{name!r} is the beginning of {_some(found)}")
    close = get_close_matches(name, names, 3, 0.4)
    hint = f"; similar: {', '.join(close)}" if close else f"; there are: {_some(names)}"
    raise Failed(f"there is no worker {name!r}{hint}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return (", ".join(listed[:MOST_NAMED]) or "none") + more


@dataclass
class Watch:
    """Whether a worker that was told to drain has. The broker's count of what a worker has in hand is old, so it means
    something only when the consumers have been gone for as long as it may be old."""

    name: str
    clock: Callable[[], float] = time.monotonic
    _consumed: float | None = None

    def look(self, management: Management) -> Worker | None:
        """What the worker still has; None when that is nothing, or when it is gone."""
        now = self.clock()
        worker = next((each for each in workers_of(management) if each.name == self.name), None)
        if worker is None:
            return None
        if worker.shares or self._consumed is None:
            self._consumed = now
        old = now - self._consumed < FIGURES_LAG
        return worker if worker.shares or worker.running or old else None


def drained(
    management: Management,
    watch: Watch,
    timeout: float,
    progress: Callable[[Worker], None],
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until the worker has nothing. False after ``timeout`` seconds."""
    deadline = watch.clock() + timeout
    while (worker := watch.look(management)) is not None:
        progress(worker)
        if watch.clock() >= deadline:
            return False
        sleep(PERIOD)
    return True
