"""Pools as the broker sees them: a queue, or the queues of its partitions, its bindings and its consumers."""

from dataclasses import dataclass, field

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.management import ConsumerFigures, Management
from rabbitbal.wire import topology


@dataclass(frozen=True)
class Member:
    """A worker at a pool's queue, or at one partition of it."""

    worker: str
    pool: str
    partition: int | None
    slots: int
    priority: int


@dataclass
class Pool:
    """``rate`` is in requests per second that workers took, None where the broker does not know it. ``queue`` is False
    where something is bound to a pool that has none: what is led there is lost."""

    name: str
    queue: bool = True
    sticky: bool = False
    ready: int = 0
    in_flight: int = 0
    rate: float | None = None
    bindings: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    """One for each worker."""

    @property
    def workers(self) -> int:
        return len(self.members)

    @property
    def slots(self) -> int:
        return sum(member.slots for member in self.members)

    @property
    def wait(self) -> float | None:
        """Seconds that the next request may expect to wait: ready ÷ rate. None where nobody takes what is there."""
        if not self.ready:
            return 0.0
        return self.ready / self.rate if self.rate else None

    def shown(self) -> dict[str, object]:
        return {
            "pool": self.name,
            "queue": self.queue,
            "sticky": self.sticky,
            "bindings": self.bindings,
            "workers": self.workers,
            "slots": self.slots,
            "ready": self.ready,
            "in_flight": self.in_flight,
            "rate": self.rate,
            "wait": self.wait,
        }


def pools_of(management: Management) -> dict[str, Pool]:
    """By name. A partition's figures count for its pool."""
    found: dict[str, Pool] = {}
    for queue in management.queues():
        place = _place(queue.name)
        if place is None:
            continue
        name, partition = place
        pool = found.setdefault(name, Pool(name, queue=False))
        pool.queue |= partition is None
        pool.sticky |= partition is not None
        pool.ready += queue.ready
        pool.in_flight += queue.unacknowledged
        if queue.rate is not None:
            pool.rate = (pool.rate or 0.0) + queue.rate
    for name, key in management.bindings():
        found.setdefault(name, Pool(name, queue=False)).bindings.append(key)
    for member in members_of(management):
        if member.pool in found and member.partition is None:
            found[member.pool].members.append(member)
    return dict(sorted(found.items()))


def members_of(management: Management) -> list[Member]:
    return [member for row in management.consumers() if (member := _member(row)) is not None]


def existing(name: str, pools: dict[str, Pool]) -> Pool:
    """The pool, which has a queue. Raises Failed."""
    if name not in pools:
        raise Failed(f"there is no pool {name!r}; there are: {', '.join(pools) or 'none'}")
    if not pools[name].queue:
        raise Failed(f"the pool {name!r} has no queue: what is led there is lost. Declare it again")
    return pools[name]


def _member(row: ConsumerFigures) -> Member | None:
    place = _place(row.queue)
    if place is None:
        return None
    name, partition = place
    worker = row.tag if partition is None else row.tag.rpartition(".")[0]
    return Member(worker, name, partition, row.prefetch, row.priority)


def _place(queue: str) -> tuple[str, int | None] | None:
    """Pool and partition of a queue, None where it is no pool's."""
    kind, _, rest = queue.partition(".")
    name, dot, partition = rest.partition(".")
    if f"{kind}." != topology.pool_queue("") or not name:
        return None
    if not dot:
        return name, None
    # Digits of any script are decimal to Python, and int() takes no more than some thousands.
    good = partition.isascii() and partition.isdecimal() and len(partition) <= len(str(topology.PARTITIONS))
    return (name, int(partition)) if good else None
