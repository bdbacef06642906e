"""The worker's consumers: joined, lost, joined again, left. The session is a stand-in that confirms or refuses."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from rabbitbal.runtime.broker import Delivery, Server, Session
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.worker import broker as module
from rabbitbal.worker.broker import WorkerBroker

SLOTS = {"default": 8, "reports": 2}
Lost = Callable[[str], None]


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.001)


class Channel:
    def __init__(self, prefetch: int, lost: Lost | None) -> None:
        self.prefetch = prefetch
        self.lost: Lost = lost or (lambda why: None)
        self.queue = ""
        self.cancelled = False


class Desk:
    """Stands for the broker behind a session: remembers channels, and refuses consumers of ``missing`` queues."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.missing: set[str] = set()
        self.before_confirm: Callable[[], Awaitable[None]] | None = None

    async def channel(self, *, confirms: bool = False, prefetch: int = 0, lost: Lost | None = None) -> Channel:
        self.channels.append(Channel(prefetch, lost))
        return self.channels[-1]

    async def consume(self, channel: Channel, queue: str, handle: Any, *, no_ack: bool = False) -> Any:
        if queue in self.missing:
            channel.lost("closed by the broker")
            raise ConnectionError("no such queue")
        channel.queue = queue
        if self.before_confirm is not None:
            await self.before_confirm()

        async def cancel() -> None:
            channel.cancelled = True

        return cancel

    def consuming(self, queue: str) -> list[Channel]:
        return [channel for channel in self.channels if channel.queue == queue and not channel.cancelled]


async def _declared(*_: object) -> None:
    """The private queue is declared."""


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    monkeypatch.setattr(module, "consume", desk.consume)
    monkeypatch.setattr(module, "private_queue", _declared)
    monkeypatch.setattr(module, "RENEW_PERIOD", 0.002)
    return desk


@pytest.fixture
async def worker(desk: Desk) -> WorkerBroker:
    worker = WorkerBroker(Server("amqp://nowhere/", None), "worker-1", SLOTS)
    worker._publisher.link.up.set()
    await joined(worker, desk)
    return worker


async def joined(worker: WorkerBroker, desk: Desk) -> None:
    await worker._consume(cast(Session, desk))
    worker._consumer.up.set()


async def test_a_pool_is_consumed_with_a_prefetch_of_its_slots(worker: WorkerBroker, desk: Desk) -> None:
    """On a channel of its own each, so that one pool never takes another's slots."""
    assert [(channel.queue, channel.prefetch) for channel in desk.channels] == [
        ("worker.worker-1", 0),
        ("pool.default", 8),
        ("pool.reports", 2),
    ]
    assert worker.ready()


async def test_a_worker_is_not_ready_while_it_cannot_answer(worker: WorkerBroker) -> None:
    """Ready means both: pools confirmed, and a connection to publish on."""
    worker._publisher.link.up.clear()
    assert not worker.ready()


async def test_without_a_way_to_answer_nothing_is_consumed(desk: Desk) -> None:
    """The pools are joined when the publisher is up."""
    worker = WorkerBroker(Server("amqp://nowhere/", None), "worker-1", SLOTS)
    joining = asyncio.ensure_future(worker._consume(cast(Session, desk)))
    await asyncio.wait({joining}, timeout=0.01)
    assert desk.channels == []
    worker._publisher.link.up.set()
    await asyncio.wait_for(joining, 1)
    assert len(desk.channels) == 3


async def test_a_pool_whose_consumer_was_cancelled_is_joined_again(worker: WorkerBroker, desk: Desk) -> None:
    """Its queue was deleted: the worker is not ready until it is back, and the other pool goes on."""
    desk.missing.add("pool.reports")
    desk.channels[2].lost("consumer cancelled by the broker")
    assert not worker.ready()
    await until(lambda: len(desk.channels) > 5)
    desk.missing.clear()
    await until(worker.ready)
    assert (len(desk.consuming("pool.default")), desk.channels[-1].prefetch) == (1, 2)


async def test_a_channel_that_tells_of_its_end_twice_is_replaced_once(worker: WorkerBroker, desk: Desk) -> None:
    """Two consumers of one pool would run twice as many requests as there are slots."""
    old = desk.channels[1]
    old.lost("consumer cancelled by the broker")
    await until(worker.ready)
    old.lost("channel closed")
    assert worker.ready()
    assert len(desk.channels) == 4


async def test_a_connection_that_comes_back_is_joined_afresh(worker: WorkerBroker, desk: Desk) -> None:
    """Nothing of the former session is tried again."""
    desk.missing.add("pool.default")
    desk.channels[1].lost("channel closed")
    worker._consumer.up.clear()
    worker._lost()
    await until(lambda: not worker._renewals)
    desk.missing.clear()
    before = len(desk.channels)
    await joined(worker, desk)
    assert (before + 3, True) == (len(desk.channels), worker.ready())


async def test_leaving_cancels_every_consumer(worker: WorkerBroker, desk: Desk) -> None:
    """But not the queue of cancels: what runs may still be cancelled."""
    await worker.leave()
    assert [channel.cancelled for channel in desk.channels] == [False, True, True]
    assert not worker.ready()


async def test_a_worker_that_leaves_joins_no_pool_again(worker: WorkerBroker, desk: Desk) -> None:
    """Neither when a consumer is lost nor when the connection comes back: it would take new requests and lose them."""
    await worker.leave()
    desk.channels[1].lost("channel closed")
    worker._consumer.up.clear()
    worker._lost()
    await joined(worker, desk)
    assert (desk.consuming("pool.default"), desk.consuming("pool.reports")) == ([], [])
    assert set() == worker._renewals


async def test_a_consumer_confirmed_while_the_worker_leaves_is_cancelled(worker: WorkerBroker, desk: Desk) -> None:
    """The broker had it already."""

    async def leave() -> None:
        desk.before_confirm = None
        await worker.leave()

    desk.before_confirm = leave
    desk.channels[1].lost("consumer cancelled by the broker")
    await until(lambda: not worker._renewals)
    assert [channel.cancelled for channel in desk.channels[2:]] == [True, True]
    assert desk.channels[3].queue == "pool.default"


class Told:
    """A message on the worker's own queue."""

    def __init__(self, envelope: Envelope | None, body: bytes = b"") -> None:
        self._envelope = envelope
        self.body = body

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


async def test_the_worker_hears_what_is_for_it_and_for_every_worker(desk: Desk, monkeypatch: Any) -> None:
    """From the moment that its queue is bound; what was told before it has missed."""
    worker = WorkerBroker(Server("amqp://nowhere/", None), "worker-1", SLOTS)
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
