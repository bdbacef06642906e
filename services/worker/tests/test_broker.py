"""The worker's consumers: joined, lost, joined again, left. The session is a stand-in that confirms or refuses."""

import asyncio
import time
from typing import Any, cast

import pytest

from rabbitbal.runtime.broker import Delivery, Server, Session
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.worker import broker as module
from rabbitbal.worker.broker import WorkerBroker
from rabbitbal.worker.settings import Membership
from tests.desk import Desk
from tests.harness import until

POOLS = (Membership("default", 8), Membership("reports", 2, -1))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    desk.install(monkeypatch)
    return desk


@pytest.fixture
async def worker(desk: Desk) -> WorkerBroker:
    worker = WorkerBroker(Server("amqp://nowhere/", None), "worker-1", POOLS)
    worker._publisher.link.up.set()
    await joined(worker, desk)
    return worker


async def joined(worker: WorkerBroker, desk: Desk) -> None:
    await worker._consume(cast(Session, desk))
    worker._consumer.up.set()


async def test_a_pool_is_consumed_with_a_prefetch_of_its_slots(worker: WorkerBroker, desk: Desk) -> None:
    """On a channel of its own each, so that one pool never takes another's slots; by the worker's name, and with the
    priority that it has there."""
    assert [(channel.queue, channel.prefetch, channel.tag, channel.priority) for channel in desk.channels] == [
        ("worker.worker-1", 0, None, 0),
        ("pool.default", 8, "worker-1", 0),
        ("pool.reports", 2, "worker-1", -1),
    ]
    assert worker.ready()


async def test_a_worker_is_not_ready_while_it_cannot_answer(worker: WorkerBroker) -> None:
    """Ready means both: pools confirmed, and a connection to publish on."""
    worker._publisher.link.up.clear()
    assert not worker.ready()


async def test_without_a_way_to_answer_nothing_is_consumed(desk: Desk) -> None:
    """The pools are joined when the publisher is up."""
    worker = WorkerBroker(Server("amqp://nowhere/", None), "worker-1", POOLS)
    joining = asyncio.ensure_future(worker._consume(cast(Session, desk)))
    await asyncio.wait({joining}, timeout=0.01)
    assert desk.channels == []
    worker._publisher.link.up.set()
    await asyncio.wait_for(joining, 1)
    assert len(desk.channels) == 3


async def test_a_pool_whose_consumer_was_cancelled_is_joined_again(worker: WorkerBroker, desk: Desk) -> None:
    """Its queue was deleted: the worker is not ready until it is back, and the other pool goes on."""
    desk.missing.add("pool.reports")
    desk.channels[2].drop("consumer cancelled by the broker")
    assert not worker.ready()
    await until(lambda: len(desk.channels) > 5)
    desk.missing.clear()
    await until(worker.ready)
    assert (len(desk.consuming("pool.default")), desk.channels[-1].prefetch) == (1, 2)


async def test_a_channel_that_tells_of_its_end_twice_is_replaced_once(worker: WorkerBroker, desk: Desk) -> None:
    """Two consumers of one pool would run twice as many requests as there are slots."""
    old = desk.channels[1]
    old.drop("consumer cancelled by the broker")
    await until(worker.ready)
    old.drop("channel closed")
    assert worker.ready()
    assert len(desk.channels) == 4


async def test_a_connection_that_comes_back_is_joined_afresh(worker: WorkerBroker, desk: Desk) -> None:
    """Nothing of the former session is tried again."""
    desk.missing.add("pool.default")
    desk.channels[1].drop("channel closed")
    worker._consumer.up.clear()
    worker._lost()
    await until(lambda: not worker.pools._chores)
    desk.missing.clear()
    before = len(desk.channels)
    await joined(worker, desk)
    assert (before + 3, True) == (len(desk.channels), worker.ready())


async def test_leaving_cancels_every_consumer(worker: WorkerBroker, desk: Desk) -> None:
    """But not the queue of cancels: what runs may still be cancelled."""
    await worker.pools.leave()
    assert [channel.cancelled for channel in desk.channels] == [False, True, True]
    assert worker.ready(), "it is as it should be"


async def test_a_worker_that_left_may_come_back(worker: WorkerBroker, desk: Desk) -> None:
    """By the connection that it has; coming back twice joins nothing twice."""
    await worker.pools.leave()
    await worker.pools.come_back()
    assert (len(desk.consuming("pool.default")), len(desk.consuming("pool.reports"))) == (1, 1)
    await worker.pools.come_back()
    assert (len(desk.consuming("pool.default")), len(desk.consuming("pool.reports"))) == (1, 1)
    assert worker.ready()


async def test_coming_and_going_leaves_no_channels_open(worker: WorkerBroker, desk: Desk) -> None:
    """The broker allows only so many on a connection."""
    for _ in range(3):
        await worker.pools.leave()
        await worker.pools.come_back()
    assert [channel.queue for channel in desk.channels if not channel.closed] == [
        "worker.worker-1",
        "pool.default",
        "pool.reports",
    ]


async def test_a_pool_is_not_joined_twice_at_a_time(worker: WorkerBroker, desk: Desk) -> None:
    """It was lost just before the worker left, and is tried again when it comes back: by two."""
    desk.missing.add("pool.reports")
    desk.channels[2].drop()
    await until(lambda: len(desk.channels) > 4)
    await worker.pools.leave()
    await worker.pools.come_back()
    desk.missing.clear()
    await until(worker.ready)
    await until(lambda: not worker.pools._chores)
    assert len(desk.consuming("pool.reports")) == 1


async def test_a_worker_that_is_out_stays_out_when_the_connection_comes_back(worker: WorkerBroker, desk: Desk) -> None:
    """Until it is told to come back, and that may be while there is none."""
    await worker.pools.leave()
    worker._consumer.up.clear()
    worker._lost()
    assert not worker.ready()
    await joined(worker, desk)
    assert (desk.consuming("pool.default"), worker.ready()) == ([], True)
    worker._consumer.up.clear()
    worker._lost()
    await worker.pools.come_back()
    assert desk.consuming("pool.default") == []
    await joined(worker, desk)
    assert (len(desk.consuming("pool.default")), worker.ready()) == (1, True)


async def test_who_comes_back_to_a_pool_that_is_gone_joins_the_others(worker: WorkerBroker, desk: Desk) -> None:
    """And this one when it is there again."""
    await worker.pools.leave()
    desk.missing.add("pool.default")
    await worker.pools.come_back()
    assert (len(desk.consuming("pool.reports")), worker.ready()) == (1, False)
    desk.missing.clear()
    await until(worker.ready)
    assert len(desk.consuming("pool.default")) == 1


async def test_a_worker_that_leaves_joins_no_pool_again(worker: WorkerBroker, desk: Desk) -> None:
    """Neither when a consumer is lost nor when the connection comes back: it would take new requests and lose them."""
    await worker.pools.leave()
    desk.channels[1].drop("channel closed")
    worker._consumer.up.clear()
    worker._lost()
    await joined(worker, desk)
    assert (desk.consuming("pool.default"), desk.consuming("pool.reports")) == ([], [])
    assert set() == worker.pools._chores


async def test_a_consumer_confirmed_while_the_worker_leaves_is_cancelled(worker: WorkerBroker, desk: Desk) -> None:
    """The broker had it already."""

    async def leave() -> None:
        desk.before_confirm = None
        await worker.pools.leave()

    desk.before_confirm = leave
    desk.channels[1].drop("consumer cancelled by the broker")
    await until(lambda: not worker.pools._chores)
    assert [channel.cancelled for channel in desk.channels[2:]] == [True, True]
    assert desk.channels[3].queue == "pool.default"


class Told:
    """A message on the worker's own queue."""

    def __init__(self, envelope: Envelope | None, body: bytes = b"", user: str | None = None) -> None:
        self._envelope = envelope
        self.body = body
        self.user_id = user

    def envelope(self) -> Envelope:
        if self._envelope is None:
            raise WireError("type is not known")
        return self._envelope


async def test_what_edges_tell_the_worker_reaches_the_runner(worker: WorkerBroker) -> None:
    """In its order; nonsense is passed over."""
    told: list[tuple[Envelope, bytes]] = []
    worker.told = lambda envelope, body: told.append((envelope, body))
    piece, cancel = Envelope(Kind.BODY, "c0ffee", "edge-1"), Envelope(Kind.CANCEL, "c0ffee", "edge-1")
    for message in (Told(None), Told(piece, b"abc"), Told(cancel)):
        await worker._told(cast(Delivery, message))
    assert told == [(piece, b"abc"), (cancel, b"")]


@pytest.mark.parametrize("kind", [Kind.DRAIN, Kind.RESUME])
async def test_orders_are_the_operators_alone(worker: WorkerBroker, kind: Kind) -> None:
    """Edges may publish to this queue as well; the broker lets nobody put another's name on a message."""
    ordered: list[Kind] = []
    told: list[Envelope] = []
    worker.ordered = ordered.append
    worker.told = lambda envelope, body: told.append(envelope)
    order = Envelope(kind, "order", "operator")
    for user in (None, "", "edge", "worker", "Operator"):
        await worker._told(cast(Delivery, Told(order, user=user)))
    assert ordered == []
    await worker._told(cast(Delivery, Told(order, user="operator")))
    assert (ordered, told) == ([kind], [])


async def test_the_worker_hears_what_is_for_it_and_for_every_worker(desk: Desk, monkeypatch: Any) -> None:
    """From the moment that its queue is bound; what was told before it has missed."""
    worker = WorkerBroker(Server("amqp://nowhere/", None), "worker-1", POOLS)
    worker._publisher.link.up.set()
    bound: list[tuple[str, str, list[str]]] = []

    async def private_queue(channel: object, name: str, exchange: str, keys: Any, arguments: object) -> None:
        assert worker.since > time.time()
        bound.append((name, exchange, list(keys)))

    monkeypatch.setattr(module, "private_queue", private_queue)
    before = time.time()
    await joined(worker, desk)
    assert bound == [("worker.worker-1", "rabbitbal.streams", ["worker-1", "*"])]
    assert before <= worker.since <= time.time()
