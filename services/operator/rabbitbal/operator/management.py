"""What the broker's HTTP API says of queues, bindings, consumers, channels and connections. Read only.

https://www.rabbitmq.com/docs/http-api-reference
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from rabbitbal.operator.errors import Failed
from rabbitbal.wire import topology

# Seconds: without a byte, and for a whole answer.
TIMEOUT = 10.0
TOTAL = 30.0
# Bytes of an answer: thousands of queues and channels.
LONGEST = 64 * 1024 * 1024
VHOST = "%2F"

# A change shows in the broker's figures up to twice its `collect_statistics_interval` of 5 s later: who counts writes
# every five seconds, and who adds up reads every five seconds.
FIGURES_LAG = 10.0


@dataclass(frozen=True)
class QueueFigures:
    """``rate`` is in deliveries per second, None where the broker has not counted any yet."""

    name: str
    ready: int
    unacknowledged: int
    rate: float | None


@dataclass(frozen=True)
class ConsumerFigures:
    tag: str
    queue: str
    prefetch: int
    priority: int


@dataclass(frozen=True)
class ConnectionFigures:
    """``given`` is what its client calls it, ``since`` in seconds since the Unix epoch."""

    name: str
    given: str
    since: float


class Management:
    """Raises Failed where the API cannot be asked or answers nonsense."""

    def __init__(self, url: str, login: tuple[str, str], transport: httpx.BaseTransport | None = None) -> None:
        # Nothing of the environment: a proxy, or a password in ~/.netrc, is not meant for the broker.
        self._client = httpx.Client(
            base_url=url.rstrip("/") + "/api/", auth=login, timeout=TIMEOUT, transport=transport, trust_env=False
        )
        self._url = url

    def close(self) -> None:
        self._client.close()

    def queues(self) -> list[QueueFigures]:
        columns = "name,messages_ready,messages_unacknowledged,message_stats.deliver_get_details.rate"
        return [
            QueueFigures(
                _text(row, "name"),
                int(_number(row, "messages_ready")),
                int(_number(row, "messages_unacknowledged")),
                _rate(row),
            )
            for row in self._list(f"queues/{VHOST}", columns)
        ]

    def bindings(self) -> list[tuple[str, str]]:
        """Pool and key of each binding that leads requests to a pool. This is the state itself, no figure of before."""
        rows = self._list(f"exchanges/{VHOST}/{topology.REQUESTS}/bindings/source")
        prefix, key_prefix = topology.pool_exchange(""), topology.request_key("")
        return sorted(
            (_text(row, "destination").removeprefix(prefix), _text(row, "routing_key").removeprefix(key_prefix))
            for row in rows
            if _text(row, "destination_type") == "exchange" and _text(row, "destination").startswith(prefix)
        )

    def consumers(self) -> list[ConsumerFigures]:
        return [
            ConsumerFigures(
                _text(row, "consumer_tag"),
                _text(row.get("queue"), "name"),
                int(_number(row, "prefetch_count")),
                int(_number(row.get("arguments"), "x-priority")),
            )
            for row in self._list(f"consumers/{VHOST}")
        ]

    def connections(self) -> list[ConnectionFigures]:
        rows = self._list("connections", "name,user_provided_name,connected_at")
        return [
            ConnectionFigures(_text(row, "name"), _text(row, "user_provided_name"), _number(row, "connected_at") / 1000)
            for row in rows
        ]

    def unacknowledged(self) -> dict[str, int]:
        """Messages in hand, by the name of the connection."""
        counts: dict[str, int] = {}
        for row in self._list("channels", "connection_details.name,messages_unacknowledged"):
            name = _text(row.get("connection_details"), "name")
            counts[name] = counts.get(name, 0) + int(_number(row, "messages_unacknowledged"))
        return counts

    def _list(self, path: str, columns: str = "") -> list[dict[str, Any]]:
        parameters = {"columns": columns} if columns else {}
        try:
            with self._client.stream("GET", path, params=parameters) as response:
                body = _bounded(response.iter_bytes())
        except httpx.HTTPError as error:
            raise Failed(f"cannot read the broker's API at {self._url}: {error or type(error).__name__}") from error
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise Failed(f"{self._url} refuses the operator's password")
        if response.status_code != httpx.codes.OK:
            raise Failed(f"{self._url}: {path}: status {response.status_code}")
        try:
            rows = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Failed(f"{self._url}: {path}: no JSON") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Failed(f"{self._url}: {path}: not a list of objects")
        return rows


def _bounded(pieces: Iterable[bytes]) -> bytes:
    body = bytearray()
    deadline = time.monotonic() + TOTAL
    for piece in pieces:
        body += piece
        if len(body) > LONGEST:
            raise Failed("the broker's answer is larger than any that makes sense")
        if time.monotonic() > deadline:
            raise Failed(f"the broker's answer was not complete after {TOTAL:g} s")
    return bytes(body)


def _text(row: object, name: str) -> str:
    value = row.get(name, "") if isinstance(row, dict) else ""
    return value if isinstance(value, str) else ""


def _number(row: object, name: str) -> float:
    value = row.get(name, 0) if isinstance(row, dict) else 0
    # JSON as Python reads it has infinities.
    return value if isinstance(value, int | float) and abs(value) < 1 << 63 else 0


def _rate(row: dict[str, Any]) -> float | None:
    statistics = row.get("message_stats")
    details = statistics.get("deliver_get_details") if isinstance(statistics, dict) else None
    return max(0.0, float(_number(details, "rate"))) if isinstance(details, dict) and "rate" in details else None
