"""Leases of partitions, taken and released on a broker in memory. The rules of the shares are in test_leases."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import pytest
from aio_pika.abc import AbstractIncomingMessage

from rabbitbal.runtime.broker import Delivery, Session
from rabbitbal.wire.topology import PARTITIONS, partition_queue
from rabbitbal.worker.pools import Pools
from rabbitbal.worker.settings import Membership
from rabbitbal.worker.slots import Turn
from tests.bench import still
from tests.desk import Desk
from tests.harness import until

SLOTS = 2


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    desk.sticky.add("shop")
    desk.install(monkeypatch)
    return desk


class Worker:
    """A worker's part in the pool. A request runs until the test ends it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pools = Pools(name, (Membership("shop", SLOTS),))
        self.pools.handle = self.handle
        self.runs: dict[str, asyncio.Event] = {}
        self.given_back: list[str] = []

    async def handle(self, delivery: Delivery, pool: str, turn: Turn | None) -> None:
        name = delivery.body.decode()
        assert (pool, turn is not None) == ("shop", True)
        if turn is not None and not await turn.take():
            self.given_back.append(name)
            await delivery.requeue()
            return
        self.runs[name] = asyncio.Event()
        await self.runs[name].wait()
        await delivery.ack()
        del self.runs[name]

    async def join(self, desk: Desk) -> None:
        await self.pools.join(cast(Session, desk))


class Message:
    def __init__(self, name: str) -> None:
        self.body = name.encode()
        self.redelivered = False
        self.user_id = None
        self.routing_key = ""
        self.settled: list[str] = []

    async def ack(self) -> None:
        self.settled.append("ack")

    async def nack(self) -> None:
        self.settled.append("requeue")


@pytest.fixture
async def workers(desk: Desk) -> AsyncIterator[list[Worker]]:
    workers = [Worker(f"worker-{number}") for number in range(3)]
    yield workers
    for worker in workers:
        for run in list(worker.runs.values()):
            run.set()
        await worker.pools.leave()


def deliver(desk: Desk, queue: str, name: str) -> "tuple[Message, asyncio.Task[None]]":
    (channel,) = desk.consuming(queue)
    assert channel.handle is not None
    message = Message(name)
    work = channel.handle(Delivery(cast(AbstractIncomingMessage, message)))
    return message, asyncio.ensure_future(work)


def shares(desk: Desk) -> list[int]:
    owners = Counter((tag or "").rpartition(".")[0] for tag in desk.partitions("shop").values())
    return sorted(owners.values())


async def test_the_only_worker_of_a_sticky_pool_holds_all_its_partitions(desk: Desk, workers: list[Worker]) -> None:
    """Each as an exclusive consumer of its own channel, prefetch = slots, tag = worker and partition."""
    await workers[0].join(desk)
    await until(lambda: len(desk.partitions("shop")) == PARTITIONS)
    assert desk.partitions("shop") == {number: f"worker-0.{number}" for number in range(PARTITIONS)}
    found = {(one.exclusive, one.prefetch) for one in desk.channels if one.queue.startswith("pool.shop.")}
    assert found == {(True, SLOTS)}
    assert len(desk.consuming("pool.shop")) == 1


async def test_a_pool_without_partitions_is_asked_about_none(desk: Desk, workers: list[Worker]) -> None:
    """A plain pool costs nothing more."""
    desk.sticky.clear()
    await workers[0].join(desk)
    assert (desk.questions, desk.partitions("shop"), workers[0].pools.complete) == (0, {}, True)


async def test_workers_that_come_and_go_share_fairly(desk: Desk, workers: list[Worker]) -> None:
    """1, 3, then 2 as one leaves, then 1 as one dies; a partition never has two consumers."""
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    await workers[1].join(desk)
    await workers[2].join(desk)
    await until(lambda: shares(desk) == [10, 11, 11])
    await workers[0].pools.leave()
    await until(lambda: shares(desk) == [16, 16])
    for channel in desk.channels:
        if (channel.tag or "").startswith("worker-1"):
            channel.closed = True
    workers[1].pools.lost()
    await until(lambda: shares(desk) == [32])


async def test_a_partition_that_another_was_faster_to_take_costs_nothing_else(
    desk: Desk, workers: list[Worker]
) -> None:
    """The broker closes the channel of who was too late, and that is the channel of this attempt alone."""
    other = await desk.channel()
    other.queue = partition_queue("shop", 5)
    desk.hidden.add(other.queue)
    await workers[0].join(desk)
    await until(lambda: desk.refused > 3)
    assert shares(desk) == [1, 31]
    assert workers[0].pools.complete
    other.closed = True
    await until(lambda: shares(desk) == [32])


async def test_a_lease_that_the_broker_ends_is_taken_again(desk: Desk, workers: list[Worker]) -> None:
    """The queue was deleted and declared anew."""
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    desk.missing.add(partition_queue("shop", 7))
    (lost,) = desk.consuming(partition_queue("shop", 7))
    lost.drop()
    await until(lambda: lost.closed)
    before = desk.questions
    await until(lambda: desk.questions > before + 5)
    assert shares(desk) == [31]
    desk.missing.clear()
    await until(lambda: shares(desk) == [32])


async def test_the_pool_and_its_partitions_share_the_slots(desk: Desk, workers: list[Worker]) -> None:
    """No more run than there are slots, whatever queue they come from; a free slot goes to who waits."""
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    tasks = [deliver(desk, queue, queue)[1] for queue in ("pool.shop", "pool.shop.1", "pool.shop.2")]
    await until(lambda: len(workers[0].runs) == SLOTS)
    assert sorted(workers[0].runs) == ["pool.shop", "pool.shop.1"]
    workers[0].runs["pool.shop"].set()
    await until(lambda: sorted(workers[0].runs) == ["pool.shop.1", "pool.shop.2"])
    for run in list(workers[0].runs.values()):
        run.set()
    await asyncio.gather(*tasks)


async def test_a_stream_that_left_its_slot_lets_another_run(desk: Desk, workers: list[Worker]) -> None:
    """It is acknowledged, and goes on."""
    kept: list[Delivery] = []
    go_on = asyncio.Event()

    async def handle(delivery: Delivery, pool: str, turn: Turn | None) -> None:
        assert turn is not None
        assert await turn.take()
        kept.append(delivery)
        await go_on.wait()

    workers[0].pools.handle = handle
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    tasks = [deliver(desk, f"pool.shop.{number}", str(number))[1] for number in range(3)]
    await until(lambda: len(kept) == SLOTS)
    await kept[0].ack()
    await until(lambda: len(kept) == SLOTS + 1)
    go_on.set()
    await asyncio.gather(*tasks)


async def test_who_releases_a_partition_finishes_what_it_started_and_gives_back_what_waits(
    desk: Desk, workers: list[Worker]
) -> None:
    """And closes the channel only then: the library would cancel what runs."""
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    sent = {number: [deliver(desk, f"pool.shop.{number}", f"{number}-{turn}") for turn in (1, 2)] for number in (1, 2)}
    channels = {number: desk.consuming(f"pool.shop.{number}")[0] for number in (1, 2)}
    await until(lambda: len(workers[0].runs) == SLOTS)
    running = set(workers[0].runs)
    await asyncio.wait_for(workers[0].pools.leave(), 5)
    assert shares(desk) == []
    await until(lambda: len(workers[0].given_back) == 2)
    assert set(workers[0].runs) == running
    assert set(workers[0].given_back) == {"1-1", "1-2", "2-1", "2-2"} - running
    busy = {int(name[0]) for name in running}
    assert {number for number, channel in channels.items() if not channel.closed} == busy
    for run in list(workers[0].runs.values()):
        run.set()
    await until(lambda: all(channel.closed for channel in channels.values()))
    settled = [message.settled for both in sent.values() for message, _ in both]
    assert sorted(settled) == [["ack"], ["ack"], ["requeue"], ["requeue"]]


async def test_what_waits_from_the_pools_own_queue_is_run_by_who_leaves(desk: Desk, workers: list[Worker]) -> None:
    """It is no session's, and given back it might be lost: nobody claimed it, and not all of it may be repeated."""
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    sent = [deliver(desk, "pool.shop", str(number)) for number in range(3)]
    await until(lambda: len(workers[0].runs) == SLOTS)
    await workers[0].pools.leave()
    workers[0].runs["0"].set()
    await until(lambda: "2" in workers[0].runs)
    workers[0].pools.dismiss()
    for name in ("1", "2"):
        workers[0].runs[name].set()
    await asyncio.gather(*(task for _, task in sent))
    assert [message.settled for message, _ in sent] == [["ack"]] * 3


async def test_who_gives_up_gives_back_all_that_waits(desk: Desk, workers: list[Worker]) -> None:
    """The stop is insisted on: nothing is started any more."""
    await workers[0].join(desk)
    sent = [deliver(desk, "pool.shop", str(number)) for number in range(3)]
    await until(lambda: len(workers[0].runs) == SLOTS)
    await workers[0].pools.leave()
    workers[0].pools.dismiss()
    await until(lambda: workers[0].given_back == ["2"])
    assert sent[2][0].settled == ["requeue"]


async def test_who_loses_its_place_in_the_pool_releases_its_partitions(desk: Desk, workers: list[Worker]) -> None:
    """It is not counted while it has none, and joins again with its share."""
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    desk.missing.add("pool.shop")
    desk.consuming("pool.shop")[0].drop()
    await until(lambda: shares(desk) == [])
    desk.missing.clear()
    await until(lambda: shares(desk) == [32])
    assert workers[0].pools.complete


async def test_a_connection_that_is_lost_takes_the_leases_with_it(desk: Desk, workers: list[Worker]) -> None:
    """Nothing of it is tried again; the next one begins afresh."""
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])
    for channel in desk.channels:
        channel.closed = True
    workers[0].pools.lost()
    await until(lambda: not workers[0].pools._chores)
    before = desk.questions
    assert await still(lambda: (desk.questions, shares(desk)) == (before, []))
    await workers[0].join(desk)
    await until(lambda: shares(desk) == [32])


async def test_a_lease_won_while_the_worker_leaves_is_released(desk: Desk, workers: list[Worker]) -> None:
    """A consumer that nobody remembers would keep the partition for as long as the connection lives."""
    leaving: list[asyncio.Task[None]] = []

    async def leave() -> None:
        if len(desk.partitions("shop")) == 5 and not leaving:
            leaving.append(asyncio.ensure_future(workers[0].pools.leave()))
            await asyncio.sleep(0)

    desk.before_confirm = leave
    await workers[0].join(desk)
    await until(lambda: leaving)
    await asyncio.wait_for(leaving[0], 5)
    assert desk.partitions("shop") == {}
