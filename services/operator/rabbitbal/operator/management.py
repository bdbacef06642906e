"""What the broker's HTTP API says of queues, bindings, consumers and channels. Read only.

https://www.rabbitmq.com/docs/http-api-reference
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from rabbitbal.operator.errors import Failed
from rabbitbal.wire import topology

TIMEOUT = 10.0
# Of an answer: thousands of queues and channels.
LONGEST = 64 * 1024 * 1024
VHOST = "%2F"


@dataclass(frozen=True)
class Consumer:
    """A worker at one queue. ``partition`` is that of a sticky pool; ``channel`` names the channel it consumes on."""

    worker: str
    pool: str
    partition: int | None
    slots: int
    priority: int
    channel: str


@dataclass
class Pool:
    """``rate`` is in requests per second that workers took, None where the broker does not know it. ``wait`` is in
    seconds: ready ÷ rate, what the next request may expect."""

    name: str
    ready: int
    unacknowledged: int
    rate: float | None
    sticky: bool = False
    bindings: list[str] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)

    @property
    def workers(self) -> int:
        return len(self.members)

    @property
    def members(self) -> list[Consumer]:
        return [consumer for consumer in self.consumers if consumer.partition is None]

    @property
    def slots(self) -> int:
        return sum(consumer.slots for consumer in self.members)

    @property
    def wait(self) -> float | None:
        if not self.ready:
            return 0.0
        return self.ready / self.rate if self.rate else None


class Management:
    """Raises Failed where the API cannot be asked or answers nonsense."""

    def __init__(self, url: str, user: str, password: str, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(
            base_url=url.rstrip("/") + "/api/", auth=(user, password), timeout=TIMEOUT, transport=transport
        )
        self._url = url

    def close(self) -> None:
        self._client.close()

    def pools(self) -> dict[str, Pool]:
        """By name. A partition's figures count for its pool."""
        found: dict[str, Pool] = {}
        queues = self._list(
            f"queues/{VHOST}",
            "name,messages_ready,messages_unacknowledged,message_stats.deliver_get_details.rate,"
            "message_stats.deliver_details.rate",
        )
        for queue in queues:
            parts = _text(queue, "name").split(".")
            if parts[0] != "pool" or len(parts) not in (2, 3):
                continue
            pool = found.setdefault(parts[1], Pool(parts[1], 0, 0, None))
            pool.sticky |= len(parts) == 3
            pool.ready += _number(queue, "messages_ready")
            pool.unacknowledged += _number(queue, "messages_unacknowledged")
            rate = queue.get("message_stats", {}).get("deliver_get_details", {}).get("rate")
            if isinstance(rate, int | float):
                pool.rate = (pool.rate or 0.0) + rate
        for pool_name, key in self.bindings():
            if pool_name in found:
                found[pool_name].bindings.append(key)
        for consumer in self.consumers():
            if consumer.pool in found:
                found[consumer.pool].consumers.append(consumer)
        return dict(sorted(found.items()))

    def bindings(self) -> list[tuple[str, str]]:
        """Pool and key of each binding that leads requests to a pool."""
        rows = self._list(f"exchanges/{VHOST}/{topology.REQUESTS}/bindings/source")
        prefix, key_prefix = topology.pool_exchange(""), topology.request_key("")
        return sorted(
            (_text(row, "destination").removeprefix(prefix), _text(row, "routing_key").removeprefix(key_prefix))
            for row in rows
            if _text(row, "destination_type") == "exchange" and _text(row, "destination").startswith(prefix)
        )

    def consumers(self) -> list[Consumer]:
        found = []
        for row in self._list(f"consumers/{VHOST}"):
            queue = _text(row.get("queue", {}), "name").split(".")
            if queue[0] != "pool" or len(queue) not in (2, 3):
                continue
            partition = int(queue[2]) if len(queue) == 3 and queue[2].isdecimal() else None
            tag = _text(row, "consumer_tag")
            arguments = row.get("arguments")
            priority = arguments.get("x-priority", 0) if isinstance(arguments, dict) else 0
            found.append(
                Consumer(
                    worker=tag if partition is None else tag.rpartition(".")[0],
                    pool=queue[1],
                    partition=partition,
                    slots=_number(row, "prefetch_count"),
                    priority=priority if isinstance(priority, int) else 0,
                    channel=_text(row.get("channel_details", {}), "name"),
                )
            )
        return found

    def unacknowledged(self) -> dict[str, int]:
        """Requests in hand, by the name of the channel."""
        counts: dict[str, int] = defaultdict(int)
        for row in self._list("channels", "name,messages_unacknowledged"):
            counts[_text(row, "name")] += _number(row, "messages_unacknowledged")
        return counts

    def worker_queues(self) -> list[str]:
        """The ids of the workers that are connected, also of those that serve no pool."""
        rows = self._list(f"queues/{VHOST}", "name")
        names = (_text(row, "name") for row in rows)
        return sorted(name.removeprefix("worker.") for name in names if name.startswith("worker."))

    def _list(self, path: str, columns: str = "") -> list[dict[str, Any]]:
        parameters = {"columns": columns} if columns else {}
        try:
            with self._client.stream("GET", path, params=parameters) as response:
                body = _bounded(response.iter_bytes())
        except httpx.HTTPError as error:
            raise Failed(f"cannot read {self._url}: {error or type(error).__name__}") from error
        if response.status_code == 401:
            raise Failed(f"{self._url} refuses the operator's password")
        if response.status_code != 200:
            raise Failed(f"{self._url}: {path}: status {response.status_code}")
        try:
            rows = json.loads(body)
        except ValueError as error:
            raise Failed(f"{self._url}: {path}: no JSON") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Failed(f"{self._url}: {path}: not a list of objects")
        return rows


def _bounded(pieces: Iterable[bytes]) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > LONGEST:
            raise Failed("the broker's answer is larger than any that makes sense")
    return bytes(body)


def _text(row: Any, name: str) -> str:
    value = row.get(name, "") if isinstance(row, dict) else ""
    return value if isinstance(value, str) else ""


def _number(row: Any, name: str) -> int:
    value = row.get(name, 0) if isinstance(row, dict) else 0
    return value if isinstance(value, int) else 0
