"""Workers as the broker sees them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.management import Management

PERIOD = 0.25


@dataclass
class Share:
    """What a worker gives to one pool. ``partitions`` are those of a sticky pool that it serves."""

    pool: str
    slots: int = 0
    priority: int = 0
    partitions: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.pool}:{self.slots}" + (f":{self.priority}" if self.priority else "")
        return text + (f" ({len(self.partitions)} partitions)" if self.partitions else "")


@dataclass
class Worker:
    """``running`` counts requests in hand, as of the broker's last look, up to five seconds ago."""

    name: str
    running: int = 0
    shares: list[Share] = field(default_factory=list)

    def shown(self) -> dict[str, object]:
        return {
            "worker": self.name,
            "running": self.running,
            "pools": [
                {"pool": s.pool, "slots": s.slots, "priority": s.priority, "partitions": s.partitions}
                for s in self.shares
            ],
        }


def workers_of(management: Management) -> list[Worker]:
    """All that are connected, in the order of their names."""
    found = {name: Worker(name) for name in management.worker_queues()}
    running = management.unacknowledged()
    counted: set[str] = set()
    shares: dict[tuple[str, str], Share] = {}
    for consumer in management.consumers():
        worker = found.setdefault(consumer.worker, Worker(consumer.worker))
        share = shares.get((consumer.worker, consumer.pool))
        if share is None:
            share = shares[consumer.worker, consumer.pool] = Share(consumer.pool)
            worker.shares.append(share)
        if consumer.partition is None:
            share.slots, share.priority = consumer.slots, consumer.priority
        else:
            share.partitions.append(consumer.partition)
        if consumer.channel not in counted:
            counted.add(consumer.channel)
            worker.running += running.get(consumer.channel, 0)
    for share in shares.values():
        share.partitions.sort()
    return [found[name] for name in sorted(found)]


def resolve(name: str, names: list[str]) -> str:
    """The worker whose id is this, or begins so. Raises Failed."""
    if name in names:
        return name
    found = [each for each in names if each.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failed(f"{name} is the beginning of {', '.join(found)}")
    close = get_close_matches(name, names, 3, 0.4)
    hint = f"; did you mean {', '.join(close)}?" if close else f"; there are: {', '.join(names) or 'none'}"
    raise Failed(f"there is no worker {name}{hint}")


def idle(management: Management, name: str, timeout: float, progress: Callable[[Worker], None]) -> bool:
    """Wait until the worker serves no pool and its queues have nothing in hand. False after ``timeout`` seconds.

    What it runs is counted on the channels that its consumers had: the broker looks at them every few seconds.
    """
    deadline = time.monotonic() + timeout
    channels: set[str] = set()
    while True:
        consumers = management.consumers()
        channels |= {consumer.channel for consumer in consumers if consumer.worker == name}
        running = management.unacknowledged()
        left = sum(running.get(channel, 0) for channel in channels)
        progress(Worker(name, left))
        if not any(consumer.worker == name for consumer in consumers) and not left:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(PERIOD)
