"""What the broker's HTTP API says, and what it must not be believed in."""

import json
from typing import Any

import httpx
import pytest

from rabbitbal.operator import management as module
from rabbitbal.operator.errors import Failed
from rabbitbal.operator.management import Management
from rabbitbal.operator.workers import resolve, workers_of

QUEUES = [
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
]
BINDINGS = [
    {"destination": "rabbitbal.pool.default", "destination_type": "exchange", "routing_key": "request.default"},
    {"destination": "rabbitbal.pool.default", "destination_type": "exchange", "routing_key": "request.a.*"},
    {"destination": "rabbitbal.pool.shop", "destination_type": "exchange", "routing_key": "request.shop"},
    {"destination": "somebody.else", "destination_type": "queue", "routing_key": "request.#"},
]
CONSUMERS = [
    {
        "queue": {"name": "pool.default"},
        "consumer_tag": "w-1",
        "prefetch_count": 4,
        "arguments": {},
        "channel_details": {"name": "c1"},
    },
    {
        "queue": {"name": "pool.default"},
        "consumer_tag": "w-2",
        "prefetch_count": 2,
        "arguments": {"x-priority": -1},
        "channel_details": {"name": "c2"},
    },
    {
        "queue": {"name": "pool.shop"},
        "consumer_tag": "w-2",
        "prefetch_count": 8,
        "arguments": [],
        "channel_details": {"name": "c3"},
    },
    {"queue": {"name": "pool.shop.0"}, "consumer_tag": "w-2.0", "prefetch_count": 8, "channel_details": {"name": "c4"}},
    {
        "queue": {"name": "pool.shop.11"},
        "consumer_tag": "w-2.11",
        "prefetch_count": 8,
        "channel_details": {"name": "c5"},
    },
    {"queue": {"name": "worker.w-1"}, "consumer_tag": "ctag1"},
]
CHANNELS = [{"name": "c1", "messages_unacknowledged": 3}, {"name": "c4", "messages_unacknowledged": 2}, {"name": "c9"}]


class Api:
    """Answers as the broker would, or as ``broken`` says."""

    def __init__(self) -> None:
        self.broken: httpx.Response | Exception | None = None
        self.paths: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.broken, Exception):
            raise self.broken
        if self.broken is not None:
            return self.broken
        assert request.method == "GET"
        path = request.url.raw_path.decode().partition("?")[0]
        self.paths.append(path)
        answers: dict[str, Any] = {
            "/api/queues/%2F": QUEUES,
            "/api/exchanges/%2F/rabbitbal.requests/bindings/source": BINDINGS,
            "/api/consumers/%2F": CONSUMERS,
            "/api/channels": CHANNELS,
        }
        return httpx.Response(200, json=answers[path])


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def management(api: Api) -> Management:
    return Management("http://broker:15672/", "operator", "secret", httpx.MockTransport(api))


def test_pools_with_their_figures(management: Management) -> None:
    pools = management.pools()
    assert list(pools) == ["default", "reports", "shop"]
    default, reports, shop = pools.values()
    assert (default.bindings, default.workers, default.slots) == (["a.*", "default"], 2, 6)
    assert (default.ready, default.unacknowledged, default.rate, default.wait) == (6, 3, 12.0, 0.5)
    assert (reports.workers, reports.rate, reports.wait) == (0, None, 0.0)
    assert (shop.sticky, shop.workers, shop.ready, shop.unacknowledged, shop.wait) == (True, 1, 3, 2, None)


def test_workers_with_their_shares(management: Management) -> None:
    """One that serves no pool is there, too: it is drained."""
    workers = workers_of(management)
    assert [worker.shown() for worker in workers] == [
        {"worker": "idle-3", "running": 0, "pools": []},
        {
            "worker": "w-1",
            "running": 3,
            "pools": [{"pool": "default", "slots": 4, "priority": 0, "partitions": []}],
        },
        {
            "worker": "w-2",
            "running": 2,
            "pools": [
                {"pool": "default", "slots": 2, "priority": -1, "partitions": []},
                {"pool": "shop", "slots": 8, "priority": 0, "partitions": [0, 11]},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (httpx.ConnectError("no route"), "cannot read http://broker:15672/: no route"),
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
        management.pools()


def test_an_answer_is_bounded(management: Management, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 100)
    with pytest.raises(Failed, match="larger than"):
        management.pools()


def test_nonsense_in_rows_counts_as_nothing(management: Management, api: Api) -> None:
    rows: list[dict[str, Any]] = [{"name": None}, {"name": "pool.x", "messages_ready": "many"}, {}]
    api.broken = httpx.Response(200, content=json.dumps(rows))
    assert [(pool.name, pool.ready) for pool in management.pools().values()] == [("x", 0)]


def test_a_worker_is_named_by_the_beginning_of_its_id() -> None:
    names = ["abc-1", "abd-2", "xyz-3"]
    assert resolve("abc-1", names) == "abc-1"
    assert resolve("x", names) == "xyz-3"
    with pytest.raises(Failed, match="ab is the beginning of abc-1, abd-2"):
        resolve("ab", names)
    with pytest.raises(Failed, match=r"there is no worker abc-2; did you mean .*abc-1"):
        resolve("abc-2", names)
    with pytest.raises(Failed, match="there are: none"):
        resolve("a", [])
