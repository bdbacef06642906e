"""What the broker's HTTP API says, and what it must not be believed in."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rabbitbal.operator import management as module
from rabbitbal.operator.errors import Failed
from rabbitbal.operator.management import FIGURES_LAG, Management
from rabbitbal.operator.pools import pools_of
from rabbitbal.operator.workers import Watch, drained, resolve, workers_of

QUEUES: list[dict[str, Any]] = [
    {
        "name": "pool.default",
        "messages_ready": 6,
        "messages_unacknowledged": 3,
        "message_stats": {"deliver_get_details": {"rate": 12.0}},
    },
    {"name": "pool.reports", "messages_ready": 0, "messages_unacknowledged": 0},
    {"name": "pool.shop", "messages_ready": 1, "messages_unacknowledged": 1},
    {"name": "pool.shop.0", "messages_ready": 2, "messages_unacknowledged": 1},
    {"name": "worker.w-1"},
    {"name": "worker.w-2"},
    {"name": "worker.idle-3"},
    {"name": "tap.log", "messages_ready": 99},
    {"name": "pool.a.b.c"},
    {"name": "pool.shop.²"},
    {"name": "pool.shop.99999999999999"},
]
BINDINGS = [
    {"destination": "rabbitbal.pool.default", "destination_type": "exchange", "routing_key": "request.default"},
    {"destination": "rabbitbal.pool.default", "destination_type": "exchange", "routing_key": "request.a.*"},
    {"destination": "rabbitbal.pool.shop", "destination_type": "exchange", "routing_key": "request.shop"},
    {"destination": "rabbitbal.pool.gone", "destination_type": "exchange", "routing_key": "request.old"},
    {"destination": "somebody.else", "destination_type": "queue", "routing_key": "request.#"},
]
CONSUMERS: list[dict[str, Any]] = [
    {"queue": {"name": "pool.default"}, "consumer_tag": "w-1", "prefetch_count": 4, "arguments": {}},
    {"queue": {"name": "pool.default"}, "consumer_tag": "w-2", "prefetch_count": 2, "arguments": {"x-priority": -1}},
    {"queue": {"name": "pool.shop"}, "consumer_tag": "w-2", "prefetch_count": 8, "arguments": []},
    {"queue": {"name": "pool.shop.0"}, "consumer_tag": "w-2.0", "prefetch_count": 8},
    {"queue": {"name": "pool.shop.11"}, "consumer_tag": "w-2.11", "prefetch_count": 8},
    {"queue": {"name": "worker.w-1"}, "consumer_tag": "ctag1"},
]
CONNECTIONS = [
    {"name": "1", "user_provided_name": "w-1 consumes", "connected_at": 1795530910599},
    {"name": "2", "user_provided_name": "w-1 publishes", "connected_at": 1795530910000},
    {"name": "3", "user_provided_name": "w-2 consumes"},
    {"name": "4", "user_provided_name": "w-2"},
    {"name": "5"},
]
CHANNELS: list[dict[str, Any]] = [
    {"connection_details": {"name": "1"}, "messages_unacknowledged": 3},
    {"connection_details": {"name": "3"}, "messages_unacknowledged": 1},
    {"connection_details": {"name": "3"}, "messages_unacknowledged": 1},
    {"connection_details": {"name": "4"}, "messages_unacknowledged": 50},
    {"connection_details": []},
]


class Api:
    """Answers as the broker would, or as ``broken`` says."""

    def __init__(self) -> None:
        self.broken: httpx.Response | Exception | None = None
        self.consumers = CONSUMERS
        self.channels = CHANNELS
        self.queues = QUEUES

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.broken, Exception):
            raise self.broken
        if self.broken is not None:
            return self.broken
        assert request.method == "GET"
        path = request.url.raw_path.decode().partition("?")[0]
        answers: dict[str, Any] = {
            "/api/queues/%2F": self.queues,
            "/api/exchanges/%2F/rabbitbal.requests/bindings/source": BINDINGS,
            "/api/consumers/%2F": self.consumers,
            "/api/channels": self.channels,
            "/api/connections": CONNECTIONS,
        }
        return httpx.Response(200, json=answers[path])


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def management(api: Api) -> Management:
    return Management("http://broker:15672/", ("operator", "secret"), httpx.MockTransport(api))


def test_pools_with_their_figures(management: Management) -> None:
    pools = pools_of(management)
    assert list(pools) == ["default", "gone", "reports", "shop"]
    default, gone, reports, shop = pools.values()
    assert (default.bindings, default.workers, default.slots) == (["a.*", "default"], 2, 6)
    assert (default.ready, default.in_flight, default.rate, default.wait) == (6, 3, 12.0, 0.5)
    assert (gone.queue, gone.bindings) == (False, ["old"])
    assert (reports.queue, reports.workers, reports.rate, reports.wait) == (True, 0, None, 0.0)
    assert (shop.sticky, shop.workers, shop.slots, shop.ready, shop.in_flight, shop.wait) == (True, 1, 8, 3, 2, None)


def test_workers_with_their_shares(management: Management) -> None:
    """One that serves no pool is there, too: it is drained. What another connection than the worker's own has in hand
    does not count."""
    workers = workers_of(management)
    assert [worker.shown() for worker in workers] == [
        {"worker": "idle-3", "running": 0, "since": None, "pools": []},
        {
            "worker": "w-1",
            "running": 3,
            "since": "2026-11-24T14:35:10Z",
            "pools": [{"pool": "default", "slots": 4, "priority": 0, "partitions": []}],
        },
        {
            "worker": "w-2",
            "running": 2,
            "since": "1970-01-01T00:00:00Z",
            "pools": [
                {"pool": "default", "slots": 2, "priority": -1, "partitions": []},
                {"pool": "shop", "slots": 8, "priority": 0, "partitions": [0, 11]},
            ],
        },
    ]


class Clock:
    """Time passes when somebody waits. ``events`` happen at their seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.events: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()


def test_a_worker_is_drained_when_the_count_of_what_it_has_is_fresh(management: Management, api: Api) -> None:
    """The broker says 0 for a while although the worker has taken something: its count is old."""
    clock = Clock()
    api.channels = []

    def leaves() -> None:
        api.consumers = [row for row in CONSUMERS if row["consumer_tag"] != "w-1"]

    def counted() -> None:
        api.channels = CHANNELS

    def finished() -> None:
        api.channels = []

    clock.events = [(103, leaves), (103 + FIGURES_LAG - 1, counted), (140, finished)]
    seen: list[tuple[bool, int]] = []
    watch = Watch("w-1", clock)
    assert drained(
        management, watch, 60, lambda worker: seen.append((bool(worker.shares), worker.running)), clock.sleep
    )
    assert clock.now == 140
    assert sorted(set(seen)) == [(False, 0), (False, 3), (True, 0)]


def test_a_drain_that_takes_too_long_is_told(management: Management) -> None:
    clock = Clock()
    assert not drained(management, Watch("w-1", clock), 5, lambda worker: None, clock.sleep)
    assert clock.now == 105


def test_a_worker_that_is_gone_has_nothing(management: Management, api: Api) -> None:
    api.queues = [row for row in QUEUES if row["name"] != "worker.w-1"]
    api.consumers = []
    clock = Clock()
    assert drained(management, Watch("w-1", clock), 60, lambda worker: None, clock.sleep)
    assert clock.now == 100


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (httpx.ConnectError("no route"), "cannot read the broker's API at http://broker:15672/: no route"),
        (httpx.Response(401), "refuses the operator's password"),
        (httpx.Response(500), "status 500"),
        (httpx.Response(200, text="<html>"), "no JSON"),
        (httpx.Response(200, json={"error": "x"}), "not a list"),
        (httpx.Response(200, json=[1]), "not a list of objects"),
    ],
)
def test_what_cannot_be_read_is_told(management: Management, api: Api, broken: Any, words: str) -> None:
    api.broken = broken
    with pytest.raises(Failed, match=words):
        pools_of(management)


def test_an_answer_is_bounded(management: Management, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 100)
    with pytest.raises(Failed, match="larger than"):
        pools_of(management)


def test_an_answer_that_drips_is_given_up(management: Management, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL", -1)
    with pytest.raises(Failed, match="not complete"):
        pools_of(management)


def test_nonsense_in_rows_counts_as_nothing(management: Management, api: Api) -> None:
    rows: list[dict[str, Any]] = [{"name": None}, {"name": "pool.x", "messages_ready": "many", "message_stats": 7}, {}]
    api.broken = httpx.Response(200, content=json.dumps(rows))
    assert [(pool.name, pool.ready) for pool in pools_of(management).values()] == [("x", 0)]


def test_a_worker_is_named_by_the_beginning_of_its_id() -> None:
    names = ["abc-1", "abd-2", "xyz-3"]
    assert resolve("abc-1", names) == "abc-1"
    assert resolve("x", names) == "xyz-3"
    with pytest.raises(Failed, match="'ab' is the beginning of abc-1, abd-2"):
        resolve("ab", names)
    with pytest.raises(Failed, match=r"there is no worker 'abc-2'; similar: .*abc-1"):
        resolve("abc-2", names)
    with pytest.raises(Failed, match="there are: none"):
        resolve("a", [])
