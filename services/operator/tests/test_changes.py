"""Commands that change something: what the broker has afterwards, what is printed, what the log is told."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest

from rabbitbal.operator import pools_commands, reach
from rabbitbal.operator.binder import Binder
from rabbitbal.operator.cli import app
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.management import Management
from rabbitbal.operator.telling import Voice
from rabbitbal.runtime.broker import Server, Topologist
from rabbitbal.wire.envelope import Kind


class Broker:
    """Its HTTP API, its bindings, and whoever listens. ``refused`` are pools whose binding it refuses; ``meanwhile``
    happens after each change."""

    def __init__(self) -> None:
        self.bindings = {("reports", "reports"), ("default", "default")}
        self.workers = {"w-1": "default", "w-2": "reports"}
        self.pools = ["default", "empty", "reports"]
        self.refused: set[str] = set()
        self.deaf = False
        self.status = 200
        self.gone: set[str] = set()
        self.meanwhile: Callable[[], None] = lambda: None
        self.notices: list[dict[str, Any]] = []
        self.orders: list[tuple[Kind, str]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        queues = [f"pool.{pool}" for pool in self.pools] + [f"worker.{worker}" for worker in self.workers]
        answers: dict[str, Any] = {
            "queues/%2F": [{"name": name} for name in queues],
            "exchanges/%2F/rabbitbal.requests/bindings/source": [
                {
                    "destination": f"rabbitbal.pool.{pool}",
                    "destination_type": "exchange",
                    "routing_key": f"request.{key}",
                }
                for key, pool in self.bindings
            ],
            "consumers/%2F": [
                {"queue": {"name": f"pool.{pool}"}, "consumer_tag": worker, "prefetch_count": 4}
                for worker, pool in self.workers.items()
            ],
            "channels": [],
            "connections": [],
        }
        path = request.url.raw_path.decode().partition("?")[0].removeprefix("/api/")
        return httpx.Response(self.status, json=answers[path])

    async def __aenter__(self) -> "Broker":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def route(self, key: str, pool: str) -> None:
        if pool in self.refused:
            raise ConnectionError("refused")
        self.bindings.add((key.removeprefix("request."), pool))
        self.meanwhile()

    async def unroute(self, key: str, pool: str) -> None:
        self.bindings.discard((key.removeprefix("request."), pool))

    async def order(self, kind: Kind, worker: str) -> bool:
        self.orders.append((kind, worker))
        return worker not in self.gone

    async def notice(self, event: str, **fields: object) -> bool:
        self.notices.append({"event": event, **fields})
        return not self.deaf


@dataclass
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Rabbitbal = Callable[..., Done]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def rabbitbal(broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rabbitbal:
    def management(url: str, login: tuple[str, str]) -> Management:
        return Management(url, login, httpx.MockTransport(broker.answer))

    def binder(server: Server, noticed: Callable[[], None] = lambda: None) -> Binder:
        return Binder(server, noticed, lambda _: cast("Topologist", broker))

    @contextlib.asynccontextmanager
    async def speaking(server: Server, who: str) -> AsyncIterator[Voice]:
        yield cast("Voice", broker)

    monkeypatch.setattr(reach, "Management", management)
    monkeypatch.setattr(reach, "speaking", speaking)
    monkeypatch.setattr(pools_commands, "Binder", binder)
    monkeypatch.setattr("rabbitbal.operator.binder.PAUSE", 0)

    def run(*command: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["rabbitbal", *command])
        said, status = "", 0
        try:
            app(standalone_mode=False)
        except (Failed, Misused) as error:
            said, status = str(error), 1 if isinstance(error, Failed) else 2
        out, err = capsys.readouterr()
        return Done(status, out, err + said)

    return run


def test_move(rabbitbal: Rabbitbal, broker: Broker) -> None:
    done = rabbitbal("pools", "move", "reports", "default", "--json")
    assert done.status == 0
    assert broker.bindings == {("reports", "default"), ("default", "default")}
    assert {"key": "reports", "from": ["reports"], "to": "default"}.items() <= done.json.items()
    assert done.json["gap_ms"] >= 0
    assert broker.notices == [{"event": "pool.moved", **done.json}]


def test_a_move_that_is_interrupted_is_told_to_the_log(rabbitbal: Rabbitbal, broker: Broker) -> None:
    broker.meanwhile = lambda: os.kill(os.getpid(), signal.SIGINT)
    done = rabbitbal("pools", "move", "reports", "default")
    assert done.status == 0
    assert "rabbitbal: this is finished first" in done.err
    assert [notice["event"] for notice in broker.notices] == ["pool.moved"]


def test_move_in_words(rabbitbal: Rabbitbal) -> None:
    assert rabbitbal("pools", "move", "reports", "default").out.startswith(
        "reports moved from reports to default; it led nowhere for "
    )


def test_move_to_where_it_is(rabbitbal: Rabbitbal, broker: Broker) -> None:
    assert rabbitbal("pools", "move", "reports", "reports").out == "nothing to do\n"
    assert broker.notices == []


@pytest.mark.parametrize(
    "command",
    [
        ("move", "reports", "nowhere"),
        ("move", "news", "default"),
        ("move", "reports", "empty"),
        ("bind", "reports", "default"),
        ("bind", "#", "default"),
        ("bind", "news", "nowhere"),
        ("unbind", "news"),
        ("unbind", "reports", "default"),
    ],
)
def test_what_is_refused_changes_nothing(rabbitbal: Rabbitbal, broker: Broker, command: tuple[str, ...]) -> None:
    before = set(broker.bindings)
    done = rabbitbal("pools", *command)
    assert done.status == 1
    assert done.err
    assert broker.bindings == before
    assert broker.notices == []


def test_move_to_a_pool_without_workers_by_force(rabbitbal: Rabbitbal, broker: Broker) -> None:
    done = rabbitbal("pools", "move", "reports", "empty", "--force")
    assert done.status == 0
    assert "empty has no workers" in done.err
    assert ("reports", "empty") in broker.bindings


def test_a_move_that_the_broker_refuses_says_what_the_state_is(rabbitbal: Rabbitbal, broker: Broker) -> None:
    broker.refused = {"default"}
    done = rabbitbal("pools", "move", "reports", "default")
    assert (done.status, done.err) == (1, "reports was not moved: refused\nreports now leads to reports")
    assert broker.notices == []


def test_a_move_that_cannot_be_undone_says_how_to(rabbitbal: Rabbitbal, broker: Broker) -> None:
    broker.refused = {"default", "reports"}
    done = rabbitbal("pools", "move", "reports", "default")
    assert done.status == 1
    assert "reports leads nowhere now; to bind it again: `pools bind reports reports`" in done.err


def test_two_at_the_same_time_are_told(rabbitbal: Rabbitbal, broker: Broker) -> None:
    """It is looked at again afterwards: somebody else has bound the key, too."""
    broker.meanwhile = lambda: broker.bindings.add(("reports", "empty"))
    done = rabbitbal("pools", "move", "reports", "default")
    assert done.status == 1
    assert "reports now leads to default, empty: somebody else" in done.err


def test_an_api_that_goes_away_behind_a_change_is_a_warning(rabbitbal: Rabbitbal, broker: Broker) -> None:
    def gone() -> None:
        broker.status = 500

    broker.meanwhile = gone
    done = rabbitbal("pools", "move", "reports", "default")
    assert done.status == 0
    assert "it is done, but could not be looked at" in done.err
    assert [notice["event"] for notice in broker.notices] == ["pool.moved"]


def test_bind_and_unbind(rabbitbal: Rabbitbal, broker: Broker) -> None:
    assert rabbitbal("pools", "bind", "news.*", "default").out == "news.* leads to default\n"
    assert rabbitbal("pools", "bind", "news.*", "default").out == "nothing to do\n"
    assert rabbitbal("pools", "bind", "news.*", "reports", "--also").status == 0
    assert {pool for key, pool in broker.bindings if key == "news.*"} == {"default", "reports"}
    assert rabbitbal("pools", "unbind", "news.*", "default").out == "news.* leads no more to default\n"
    assert rabbitbal("pools", "unbind", "news.*", "--json").json["from"] == ["reports"]
    assert not [key for key, _ in broker.bindings if key == "news.*"]
    assert [n["event"] for n in broker.notices] == ["pool.bound", "pool.bound", "pool.unbound", "pool.unbound"]


def test_a_log_that_cannot_be_told_is_a_warning(rabbitbal: Rabbitbal, broker: Broker) -> None:
    broker.deaf = True
    done = rabbitbal("pools", "bind", "news", "default")
    assert done.status == 0
    assert "it is done, but the log could not be told (pool.bound)" in done.err


def test_drain_and_resume(rabbitbal: Rabbitbal, broker: Broker) -> None:
    assert rabbitbal("drain", "w-1", "--no-wait").out == "w-1 was told to drain\n"
    assert rabbitbal("resume", "w-1", "--json").json == {"worker": "w-1", "resumed": True}
    assert broker.orders == [(Kind.DRAIN, "w-1"), (Kind.RESUME, "w-1")]
    assert [(n["event"], n["worker"]) for n in broker.notices] == [
        ("worker.draining", "w-1"),
        ("worker.resuming", "w-1"),
    ]


def test_a_drain_that_does_not_end(rabbitbal: Rabbitbal) -> None:
    done = rabbitbal("drain", "w-1", "--timeout", "0")
    assert done.status == 1
    assert "w-1 was told to drain, but is not known to be idle after 0 s" in done.err


def test_a_worker_that_left(rabbitbal: Rabbitbal, broker: Broker) -> None:
    """Its queue was there when the names were read, and the order came back."""
    broker.gone = {"w-1"}
    done = rabbitbal("drain", "w-1")
    assert done.status == 1
    assert "there is no worker 'w-1'; similar: w-2" in done.err
    assert broker.notices == []
    assert rabbitbal("drain", "w-").status == 1


def test_lists(rabbitbal: Rabbitbal) -> None:
    lines = rabbitbal("pools", "list").out.splitlines()
    assert lines[0].split() == ["POOL", "WORKERS", "SLOTS", "READY", "IN", "FLIGHT", "RATE/S", "WAIT", "S", "KEYS"]
    assert lines[1].split() == ["default", "1", "4", "0", "0", "-", "0.0", "default"]
    assert [pool["pool"] for pool in rabbitbal("pools", "list", "--json").json["pools"]] == [
        "default",
        "empty",
        "reports",
    ]
    assert rabbitbal("workers", "list").out.splitlines()[1].split() == ["w-1", "0", "-", "default:4"]
    assert rabbitbal("workers", "list", "--json").json["workers"][0]["worker"] == "w-1"
