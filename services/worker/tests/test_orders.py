"""Drain and resume: the newest order counts, and a notice says when it is carried out."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import cast

import pytest

from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Kind
from rabbitbal.worker.orders import Orders
from rabbitbal.worker.pools import Pools
from tests.bench import Bench, done, still
from tests.harness import until


class Membership:
    """Stands for the pools: remembers whether the worker is in them."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def leave(self) -> None:
        self.steps.append("leave")

    async def come_back(self) -> None:
        self.steps.append("come back")


class Office:
    """A runner with something to run, and its orders."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.pools = Membership()
        self.orders = Orders("worker-1", self.bench.broker, cast(Pools, self.pools), self.bench.runner)

    def notices(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.bench.broker.of(Kind.NOTICE)]


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    office = Office()
    task = asyncio.ensure_future(office.orders.run())
    yield office
    task.cancel()
    await asyncio.wait({task}, timeout=5)


async def test_a_drained_worker_says_so_when_it_is_idle(office: Office) -> None:
    """It leaves at once, and finishes what it has. The notice is one JSON object, for the log."""
    work = office.bench.deliver()
    await office.bench.running()
    office.orders.give(Kind.DRAIN)
    await until(lambda: office.pools.steps == ["leave"])
    assert await still(lambda: not office.notices())
    office.bench.app.finish()
    await done(work)
    await until(office.notices)
    ((exchange, key, envelope, body),) = [sent for sent in office.bench.broker.sent if sent[2].kind is Kind.NOTICE]
    assert (exchange, key) == (topology.EVENTS, "notice.worker.worker-1")
    assert (envelope.correlation_id, envelope.app_id) == ("notice", "worker-1")
    notice = json.loads(body)
    when = datetime.fromisoformat(notice.pop("when"))
    assert when.utcoffset() is not None
    assert notice == {"event": "worker.drained", "who": "worker-1", "running": 0}


async def test_a_worker_that_resumes_says_so(office: Office) -> None:
    """Behind the notice of the drain."""
    office.orders.give(Kind.DRAIN)
    await until(lambda: office.notices() == ["worker.drained"])
    office.orders.give(Kind.RESUME)
    await until(lambda: office.notices() == ["worker.drained", "worker.resumed"])
    assert office.pools.steps == ["leave", "come back"]


async def test_a_resume_ends_the_wait_of_a_drain(office: Office) -> None:
    """The worker is not said to be drained then: it was not."""
    work = office.bench.deliver()
    await office.bench.running()
    office.orders.give(Kind.DRAIN)
    await until(lambda: office.pools.steps == ["leave"])
    office.orders.give(Kind.RESUME)
    await until(lambda: office.notices() == ["worker.resumed"])
    office.bench.app.finish()
    await done(work)
    assert await still(lambda: office.notices() == ["worker.resumed"])


async def test_an_order_given_twice_is_answered_each_time(office: Office) -> None:
    """Who asks hears that it is so."""
    for number in (1, 2):
        office.orders.give(Kind.DRAIN)
        await until(lambda number=number: office.notices() == ["worker.drained"] * number)  # type: ignore[misc]


async def test_a_worker_that_stops_takes_no_order(office: Office) -> None:
    """It would join its pools with its back turned."""
    office.orders.close()
    office.orders.give(Kind.RESUME)
    assert await still(lambda: not office.pools.steps and not office.notices())
