"""How many requests wait, asked of a broker that is in memory: queues are there or not, and a question may cost the
channel."""

import asyncio
import time
from collections.abc import Callable
from typing import cast

import pytest

from rabbitbal.runtime.broker import Missing, Server, Session
from rabbitbal.runtime.settings import SettingsError
from rabbitbal.tap import depth
from rabbitbal.tap.depth import MOST_POOLS, Depths, declared
from rabbitbal.wire import topology


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.001)


class Channel:
    def __init__(self) -> None:
        self.is_closed = False


class Desk:
    """Stands for a session and for what the broker answers."""

    def __init__(self) -> None:
        self.queues: dict[str, int] = {topology.TAP_LOG: 0}
        self.channels: list[Channel] = []
        self.asked: list[str] = []
        self.failing = False

    async def channel(self, *, lost: object) -> Channel:
        self.channels.append(Channel())
        return self.channels[-1]

    async def waiting(self, channel: Channel, queue: str) -> int:
        assert not channel.is_closed, "asked on a channel that the broker has closed"
        if self.failing:
            raise ConnectionResetError("gone")
        self.asked.append(queue)
        if queue not in self.queues:
            channel.is_closed = True
            raise Missing(f"NOT_FOUND - no queue {queue}")
        return self.queues[queue]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    found = Desk()
    monkeypatch.setattr(depth, "waiting", found.waiting)
    return found


async def depths(desk: Desk, text: str = "default", named: list[str] | None = None) -> Depths:
    found = Depths(Server("amqp://tap@127.0.0.1:1/", None), "tap-1", declared(text), lambda: named or [])
    await found._begin(cast(Session, desk))
    return found


def test_the_setting_is_that_of_the_job_that_declares() -> None:
    """Names, and which of them are sticky."""
    assert declared("default, shop:sticky,reports,") == {"default": False, "shop": True, "reports": False}
    for text in ("a b", "default,default", "shop:Sticky", "../x", "x" * 65):
        with pytest.raises(SettingsError, match="RABBITBAL_POOLS_DECLARED"):
            declared(text)


async def test_each_pool_has_the_number_that_waits_and_the_tap_its_own(desk: Desk) -> None:
    """Of the tap itself, so that whoever looks knows that the figures are old."""
    desk.queues |= {"pool.default": 7, topology.TAP_LOG: 123}
    found = await depths(desk)
    await found._round()
    assert (found.ready, found.log) == ({"default": 7}, 123)


async def test_partitions_of_a_sticky_pool_are_part_of_it(desk: Desk) -> None:
    """What waits for one worker waits as well."""
    desk.queues |= {"pool.shop": 1, "pool.shop.0": 2, "pool.shop.31": 4}
    desk.queues |= {topology.partition_queue("shop", number): 0 for number in range(1, 31)}
    found = await depths(desk, "shop:sticky")
    await found._round()
    assert found.ready == {"shop": 7}


async def test_a_queue_that_is_missing_costs_a_channel_and_nothing_else(desk: Desk) -> None:
    """It is not known, and is not asked for again for a while."""
    desk.queues |= {"pool.default": 7}
    found = await depths(desk, "absent,default")
    await found._round()
    assert found.ready == {"default": 7}
    assert len(desk.channels) == 2
    await found._round()
    assert len(desk.channels) == 2
    assert desk.asked.count("pool.absent") == 1


async def test_a_queue_that_comes_is_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is looked for again."""
    monkeypatch.setattr(depth, "ABSENCE", 0.0)
    found = await depths(desk)
    await found._round()
    assert found.ready == {}
    desk.queues["pool.default"] = 3
    await found._round()
    assert found.ready == {"default": 3}


async def test_pools_that_workers_name_are_asked_for_too(desk: Desk) -> None:
    """Up to a bound, and behind those that are declared."""
    names = [f"pool{number:04}" for number in range(MOST_POOLS + 50)]
    desk.queues |= {topology.pool_queue(name): 1 for name in (*names, "zebra")}
    found = await depths(desk, "zebra", names)
    await found._round()
    assert len(found.ready) == MOST_POOLS
    assert "zebra" in found.ready


async def test_what_is_known_is_forgotten_when_nobody_can_be_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old numbers look like new ones. It is asked again when it can be."""
    monkeypatch.setattr(depth, "PERIOD", 0.001)
    desk.queues |= {"pool.default": 7}
    found = await depths(desk)
    found._link.up.set()
    asking = asyncio.ensure_future(found._ask_again())
    await until(lambda: found.ready == {"default": 7})
    desk.failing = True
    await until(lambda: not found.ready)
    assert found.log is None
    desk.failing = False
    await until(lambda: found.ready == {"default": 7})
    found._lost()
    assert (found.ready, found.log) == ({}, None)
    asking.cancel()
