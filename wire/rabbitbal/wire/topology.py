"""Every object that Rabbitbal has in the broker, as data, and who may do what with it.

https://www.rabbitmq.com/docs/access-control, https://www.rabbitmq.com/docs/maxlength
"""

from dataclasses import dataclass, field
from typing import Any

REQUESTS = "rabbitbal.requests"
RESPONSES = "rabbitbal.responses"
STREAMS = "rabbitbal.streams"
EVENTS = "rabbitbal.events"
DEAD = "rabbitbal.dead"

DEAD_QUEUE = "dead.requests"
TAP_LOG = "tap.log"

DEFAULT_POOL = "default"
DEFAULT_ROUTE = "default"


# Partitions of a sticky pool. More workers than these find nothing to own in it.
PARTITIONS = 32


def request_key(key: str) -> str:
    """Of the requests of a route's key: words of letters, digits, `-` and `_`, joined by dots."""
    return f"request.{key}"


def notice_key(role: str, instance: str) -> str:
    return f"notice.{role}.{instance}"


def figures_key(role: str, instance: str) -> str:
    return f"figures.{role}.{instance}"


# On the events exchange, from the tap to every edge.
VERDICT_KEY = "tap.verdict"


def response_key(edge: str) -> str:
    return f"response.{edge}"


def body_key(edge: str) -> str:
    """For the pieces of a streamed response. The tap is not bound to this key: it reads heads, not bodies, and so a
    message that the broker returns says that the edge is gone."""
    return f"body.{edge}"


# On the streams exchange, besides a worker's own id: every worker.
EVERY_WORKER = "*"


def pool_queue(pool: str) -> str:
    return f"pool.{pool}"


def pool_exchange(pool: str) -> str:
    """Routes are bound to this exchange, and it leads to the pool's queue and to the tap.

    Were the tap bound to `rabbitbal.requests` itself, every request would be routed somewhere, and the broker would
    never return one as unroutable. So the tap sees what a pool gets.
    """
    return f"rabbitbal.pool.{pool}"


def partition_queue(pool: str, partition: int) -> str:
    return f"pool.{pool}.{partition}"


def sticky_exchange(pool: str) -> str:
    """Of a sticky pool, between its exchange and its partitions: leads a request by its header `partition`."""
    return f"rabbitbal.sticky.{pool}"


def unpinned_exchange(pool: str) -> str:
    """Of a sticky pool: takes the requests that belong to no partition, as the alternate of `sticky_exchange`."""
    return f"rabbitbal.unpinned.{pool}"


# The broker's user that replays recorded requests, and the name of their route.
REPLAY = "replay"


def replayer(token: str) -> str:
    """The id of the edge that somebody is who replays. ``token`` is hexadecimal, and used once."""
    return f"{REPLAY}-{token}"


def edge_queue(edge: str) -> str:
    return f"edge.{edge}"


def worker_queue(worker: str) -> str:
    return f"worker.{worker}"


# Queues that live and die with one connection. Bounded like all others: an edge has at most as many replies to come as
# it has requests pending, so these bounds are met only by somebody who misbehaves.
PRIVATE_QUEUE_ARGUMENTS: dict[str, Any] = {
    "x-max-length": 100_000,
    "x-max-length-bytes": 256 * 1024 * 1024,
    "x-overflow": "reject-publish",
}


@dataclass(frozen=True)
class Exchange:
    name: str
    type: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Queue:
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """``arguments`` are those that an exchange of type `headers` compares."""

    queue: str
    exchange: str
    key: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Permissions:
    """Regular expressions over object names; ``topics`` maps a topic exchange to (write, read) over routing keys."""

    configure: str
    write: str
    read: str
    topics: dict[str, tuple[str, str]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    """`monitoring` may look at everything by the HTTP API of the broker."""


EXCHANGES = (
    Exchange(REQUESTS, "topic"),
    Exchange(RESPONSES, "topic"),
    Exchange(STREAMS, "direct"),
    Exchange(EVENTS, "topic"),
    Exchange(DEAD, "fanout"),
)

# A tap queue drops its oldest message when full. One that rejected would make the broker nack the edge's publish,
# and the log would have stopped the traffic.
TAP_QUEUES = (
    Queue(
        TAP_LOG,
        {"x-max-length": 20_000, "x-max-length-bytes": 64 * 1024 * 1024, "x-overflow": "drop-head"},
    ),
)
DEAD_QUEUES = (
    Queue(
        DEAD_QUEUE,
        {"x-max-length": 1_000, "x-max-length-bytes": 64 * 1024 * 1024, "x-overflow": "drop-head"},
    ),
)
FIXED_BINDINGS = (
    Binding(TAP_LOG, RESPONSES, "response.#"),
    Binding(TAP_LOG, EVENTS, "ended.#"),
    Binding(TAP_LOG, EVENTS, "notice.#"),
    Binding(TAP_LOG, EVENTS, "figures.#"),
    Binding(DEAD_QUEUE, DEAD, ""),
)


def pool_bindings(name: str) -> tuple[Binding, ...]:
    """What makes an exchange and a queue a pool."""
    return (Binding(pool_queue(name), pool_exchange(name), ""), Binding(TAP_LOG, pool_exchange(name), ""))


def pool(name: str, length: int, length_bytes: int) -> Queue:
    """The queue of a pool: at most ``length`` requests wait, and the next publish is refused (a nack)."""
    return Queue(pool_queue(name), _bounds(length, length_bytes))


def partitions(name: str, length: int, length_bytes: int) -> tuple[Queue, ...]:
    """The queues of a sticky pool's partitions, each as long as the pool's own."""
    arguments = _bounds(length, length_bytes)
    return tuple(Queue(partition_queue(name, number), arguments) for number in range(PARTITIONS))


def sticky_exchanges(name: str) -> tuple[Exchange, ...]:
    """What a sticky pool has besides. The alternate exchange gets what no partition's binding fits."""
    unpinned = unpinned_exchange(name)
    return (
        Exchange(unpinned, "fanout"),
        Exchange(sticky_exchange(name), "headers", {"alternate-exchange": unpinned}),
    )


def partition_bindings(name: str) -> tuple[Binding, ...]:
    """https://www.rabbitmq.com/docs/exchanges#headers: the value is compared with the header as a string."""
    return tuple(
        Binding(
            partition_queue(name, number),
            sticky_exchange(name),
            "",
            {"x-match": "all", "partition": str(number)},
        )
        for number in range(PARTITIONS)
    )


def _bounds(length: int, length_bytes: int) -> dict[str, Any]:
    return {"x-max-length": length, "x-max-length-bytes": length_bytes, "x-overflow": "reject-publish"}


NOTHING = "^$"

# The user whose orders (drain, resume) workers take.
OPERATOR = "operator"
# The user whose verdicts edges believe.
TAP = "tap"

ROLES: dict[str, Permissions] = {
    "edge": Permissions(
        configure=r"^edge\..+$",
        write=r"^(rabbitbal\.(requests|streams|events|dead)|edge\..+)$",
        read=r"^(rabbitbal\.(responses|events)|edge\..+)$",
        topics={
            REQUESTS: (r"^request\.", NOTHING),
            RESPONSES: (NOTHING, r"^(response|body)\."),
            EVENTS: (r"^(ended|(notice|figures)\.edge)\.", r"^tap\.verdict$"),
        },
    ),
    "worker": Permissions(
        configure=r"^worker\..+$",
        write=r"^(rabbitbal\.(responses|events|dead)|worker\..+)$",
        read=r"^(rabbitbal\.streams|pool\..+|worker\..+)$",
        topics={RESPONSES: (r"^(response|body)\.", NOTHING), EVENTS: (r"^(notice|figures)\.worker\.", NOTHING)},
    ),
    TAP: Permissions(
        configure=NOTHING,
        write=r"^rabbitbal\.events$",
        read=r"^tap\..+$",
        topics={EVENTS: (r"^tap\.", NOTHING)},
    ),
    OPERATOR: Permissions(
        configure=NOTHING,
        write=r"^rabbitbal\.(pool\.[^.]+|streams|events)$",
        read=r"^rabbitbal\.requests$",
        topics={
            REQUESTS: (NOTHING, r"^request\."),
            EVENTS: (r"^notice\.operator\.", NOTHING),
        },
        tags=("monitoring",),
    ),
    # The operator's command while it replays requests: an edge with the id `replay-<hex>`. It is a user of its own, as
    # one who may bind requests and has a queue could have all of them led to it.
    REPLAY: Permissions(
        configure=r"^edge\.replay-[0-9a-f]+$",
        write=r"^(rabbitbal\.(pool\.[^.]+|streams|events)|edge\.replay-[0-9a-f]+)$",
        read=r"^(rabbitbal\.responses|edge\.replay-[0-9a-f]+)$",
        topics={
            RESPONSES: (NOTHING, r"^(response|body)\.replay-[0-9a-f]+$"),
            EVENTS: (r"^ended\.replay-[0-9a-f]+$", NOTHING),
        },
    ),
    "topology": Permissions(
        configure=r"^(rabbitbal|pool|tap|dead)\..+$",
        write=r"^(rabbitbal|pool|tap|dead)\..+$",
        read=r"^(rabbitbal|pool|tap|dead)\..+$",
    ),
}
