"""Links and publishers against a server that speaks just enough AMQP 0-9-1 to break at chosen moments.

What is asserted here is what aio-pika and aiormq really do when a connection ends, not what their documents say.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pamqp.frame
import pytest
from pamqp import commands, header
from pamqp.body import ContentBody
from pamqp.heartbeat import Heartbeat

from rabbitbal.runtime.broker import (
    LOSSES,
    Delivery,
    Different,
    Disconnected,
    Link,
    Publisher,
    Server,
    Session,
    Topologist,
    Verdict,
    consume,
    consumers,
    losses_named,
    private_queue,
)
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind

ENVELOPE = Envelope(Kind.CANCEL, "c0ffee", "edge-1")
CAPABILITIES: Any = {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}
Basic = commands.Basic


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until the condition holds; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.005)


class Client:
    """One connection to the server below."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.publishes = 0
        self.channels: set[int] = set()
        self.properties: dict[str, Any] = {}

    def send(self, channel: int, *frames: Any) -> None:
        self.writer.write(b"".join(pamqp.frame.marshal(frame, channel) for frame in frames))


class AmqpServer:
    """Answers what a client needs. ``silent_to`` are methods it does not answer; ``verdict`` is how it confirms."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.silent_to: set[type] = set()
        self.verdict: str = "ack"
        self.seen: list[Any] = []
        self.published: list[tuple[Any, header.ContentHeader]] = []
        self.consumers: dict[str, tuple[Client, int]] = {}
        self.counts: dict[str, int] = {}
        """Consumers of queues, for who asks."""
        self.refusals: dict[str, commands.Channel.Close] = {}
        """How a declare or consume of a queue closes its channel."""
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def count(self, method: type) -> int:
        return sum(isinstance(frame, method) for frame in self.seen)

    def drop(self) -> None:
        """End all connections without a word, as a killed broker does."""
        while self.clients:
            self.clients.pop().writer.transport.abort()

    def deliver(self, tag: str, body: bytes, number: int = 1) -> None:
        client, channel = self.consumers[tag]
        properties = Basic.Properties(
            message_type="cancel",
            correlation_id="c0ffee",
            app_id="edge-1",
            headers={"version": 1, "attempt": 1},
        )
        client.send(
            channel,
            Basic.Deliver(consumer_tag=tag, delivery_tag=number, redelivered=False, exchange="e", routing_key="k"),
            header.ContentHeader(0, len(body), properties),
            ContentBody(body),
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(writer)
        try:
            await reader.readexactly(8)
            self.clients.append(client)
            client.send(0, commands.Connection.Start(server_properties={"capabilities": CAPABILITIES}))
            while True:
                head = await reader.readexactly(7)
                rest = await reader.readexactly(int.from_bytes(head[3:7], "big") + 1)
                _, channel, frame = pamqp.frame.unmarshal(head + rest)
                self.seen.append(frame)
                if type(frame) not in self.silent_to:
                    self._answer(client, channel, frame)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, client: Client, channel: int, frame: Any) -> None:
        answers: dict[type, Any] = {
            commands.Connection.StartOk: commands.Connection.Tune(2047, 131072, 10),
            commands.Connection.Open: commands.Connection.OpenOk(),
            commands.Connection.Close: commands.Connection.CloseOk(),
            commands.Channel.Open: commands.Channel.OpenOk(),
            commands.Channel.Close: commands.Channel.CloseOk(),
            commands.Confirm.Select: commands.Confirm.SelectOk(),
            commands.Queue.Bind: commands.Queue.BindOk(),
            Basic.Qos: Basic.QosOk(),
        }
        if isinstance(frame, commands.Channel.Open):
            client.channels.add(channel)
        if type(frame) in answers:
            client.send(channel, answers[type(frame)])
        elif isinstance(frame, commands.Queue.Declare | Basic.Consume) and frame.queue in self.refusals:
            client.send(channel, self.refusals[frame.queue])
        elif isinstance(frame, commands.Queue.Declare):
            client.send(channel, commands.Queue.DeclareOk(frame.queue, 0, self.counts.get(frame.queue, 0)))
        elif isinstance(frame, Basic.Consume):
            self.consumers[frame.consumer_tag] = (client, channel)
            client.send(channel, Basic.ConsumeOk(frame.consumer_tag))
        elif isinstance(frame, Basic.Cancel):
            client.send(channel, Basic.CancelOk(frame.consumer_tag))
        elif isinstance(frame, Basic.Publish):
            client.publishes += 1
            self.published.append((frame, header.ContentHeader()))
        elif isinstance(frame, header.ContentHeader):
            self.published[-1] = (self.published[-1][0], frame)
            if frame.body_size == 0:
                self._confirm(client, channel)
        elif isinstance(frame, ContentBody):
            self._confirm(client, channel)

    def _confirm(self, client: Client, channel: int) -> None:
        if self.verdict == "nack":
            client.send(channel, Basic.Nack(client.publishes))
        elif self.verdict == "return":
            publish, content = self.published[-1]
            returned = Basic.Return(312, "NO_ROUTE", publish.exchange, publish.routing_key)
            client.send(channel, returned, header.ContentHeader(0, 0, content.properties), Basic.Ack(client.publishes))
        elif self.verdict == "ack":
            client.send(channel, Basic.Ack(client.publishes))


@pytest.fixture
async def server() -> AsyncIterator[AmqpServer]:
    amqp = AmqpServer()
    listener = await amqp.start()
    yield amqp
    amqp.drop()
    listener.close()


def at(server: AmqpServer, heartbeat: int = 10) -> Server:
    return Server(f"amqp://somebody:secret@127.0.0.1:{server.port}/", None, heartbeat)


@asynccontextmanager
async def running(link: Link) -> AsyncIterator[Link]:
    task = asyncio.ensure_future(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=5)
        assert task.cancelled(), "the link ended by itself, or did not end"


@pytest.mark.parametrize(
    ("confirms", "verdict"),
    [("ack", Verdict.ROUTED), ("nack", Verdict.REJECTED), ("return", Verdict.UNROUTABLE)],
)
async def test_a_publish_has_the_verdict_of_the_broker(server: AmqpServer, confirms: str, verdict: Verdict) -> None:
    """An ack, a nack (the queue is full) and a return (no queue is bound) are told apart, with and without a body."""
    publisher = Publisher("test", at(server))
    async with running(publisher.link):
        await until(lambda: publisher.up)
        server.verdict = confirms
        assert verdict is await publisher.publish("e", "k", ENVELOPE, b"", timeout=2)
        assert verdict is await publisher.publish("e", "k", ENVELOPE, b"body", timeout=2)
    assert [publish.mandatory for publish, _ in server.published] == [True, True]


async def test_a_publish_carries_the_envelope(server: AmqpServer) -> None:
    """Properties and headers on the wire are those of docs/wire-format.md; the expiration is in milliseconds."""
    publisher = Publisher("test", at(server))
    envelope = Envelope(Kind.REQUEST, "c0ffee", "edge-1", reply_to="response.edge-1", expiration=1500, attempt=2)
    async with running(publisher.link):
        await until(lambda: publisher.up)
        await publisher.publish("e", "k", envelope, b"x", timeout=2)
    properties = server.published[0][1].properties
    assert (
        properties.message_type,
        properties.correlation_id,
        properties.app_id,
        properties.reply_to,
        properties.expiration,
        properties.content_type,
    ) == ("request", "c0ffee", "edge-1", "response.edge-1", "1500", "message/http")
    assert properties.headers == {"version": 1, "attempt": 2}


async def test_a_publish_without_a_connection_was_certainly_not_sent(server: AmqpServer) -> None:
    """The edge may wait and send even what is not safe to repeat."""
    publisher = Publisher("test", at(server))
    with pytest.raises(Disconnected) as caught:
        await publisher.publish("e", "k", ENVELOPE, timeout=1)
    assert caught.value.sent is False


async def test_a_publish_that_is_not_confirmed_in_time_may_have_been_sent(server: AmqpServer) -> None:
    """The time bound holds although the broker is silent, and the next publish on the channel is not disturbed."""
    publisher = Publisher("test", at(server))
    async with running(publisher.link):
        await until(lambda: publisher.up)
        server.verdict = "silence"
        with pytest.raises(Disconnected) as caught:
            await publisher.publish("e", "k", ENVELOPE, timeout=0.05)
        assert caught.value.sent is True
        server.verdict = "ack"
        assert Verdict.ROUTED is await publisher.publish("e", "k", ENVELOPE, timeout=2)


async def test_a_late_confirm_of_a_publish_given_up_disturbs_nobody(server: AmqpServer) -> None:
    """Confirms for publishes that timed out or were cancelled find nobody, and the connection lives."""
    publisher = Publisher("test", at(server))
    async with running(publisher.link):
        await until(lambda: publisher.up)
        server.verdict = "silence"
        with pytest.raises(Disconnected):
            await publisher.publish("e", "k", ENVELOPE, timeout=0.05)
        cancelled = asyncio.ensure_future(publisher.publish("e", "k", ENVELOPE, timeout=5))
        await until(lambda: len(server.published) == 2)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert cancelled.cancelled()
        client = server.clients[0]
        client.send(next(iter(client.channels)), Basic.Ack(2, multiple=True))
        server.verdict = "ack"
        assert Verdict.ROUTED is await publisher.publish("e", "k", ENVELOPE, timeout=2)
        assert publisher.up


async def test_a_lost_connection_ends_every_publish_and_comes_back(server: AmqpServer) -> None:
    """All that wait for a confirm hear at once that it will not come; the link is up again by itself."""
    lost: list[str] = []
    publisher = Publisher("test", at(server), lambda: lost.append("lost"))
    async with running(publisher.link):
        await until(lambda: publisher.up)
        server.verdict = "silence"
        waiting = [asyncio.ensure_future(publisher.publish("e", "k", ENVELOPE, timeout=9)) for _ in range(5)]
        await until(lambda: len(server.published) == 5)
        server.drop()
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert [isinstance(result, Disconnected) and result.sent for result in results] == [True] * 5
        await until(lambda: lost == ["lost"] and publisher.up)
        server.verdict = "ack"
        assert Verdict.ROUTED is await publisher.publish("e", "k", ENVELOPE, timeout=2)


async def test_a_close_right_behind_the_last_frames_is_a_loss_like_any_other(server: AmqpServer) -> None:
    """aiormq then rejects with a bare Exception: its reader met the end of the stream between two frames."""
    publisher = Publisher("test", at(server))
    async with running(publisher.link):
        await until(lambda: publisher.up)
        server.verdict = "silence"
        waiting = asyncio.ensure_future(publisher.publish("e", "k", ENVELOPE, timeout=9))
        await until(lambda: len(server.published) == 1)
        client = server.clients.pop()
        client.send(next(iter(client.channels)), *(Basic.Ack(n) for n in range(100, 400)))
        client.writer.close()
        with pytest.raises(Disconnected):
            await asyncio.wait_for(waiting, 2)
        await until(lambda: len(server.clients) == 1 and publisher.up)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are whole seconds in the protocol; the client's patience is ours to shorten."""
    monkeypatch.setattr("aiormq.connection.Connection.HEARTBEAT_GRACE_MULTIPLIER", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_broker_that_stopped_its_heartbeats_is_a_loss_and_not_a_cancellation(server: AmqpServer) -> None:
    """aiormq hands the CancelledError of its reader to the publisher, who was cancelled by nobody."""
    publisher = Publisher("test", at(server, heartbeat=1))
    async with running(publisher.link):
        await until(lambda: publisher.up)
        server.verdict = "silence"
        with pytest.raises(Disconnected) as caught:
            await publisher.publish("e", "k", ENVELOPE, timeout=9)
        assert caught.value.sent is True
        await until(lambda: len(server.clients) > 1 and publisher.up)


@pytest.mark.usefixtures("impatient")
async def test_a_broker_that_falls_silent_during_the_setup_does_not_end_the_link(server: AmqpServer) -> None:
    """The link is kept up for ever: no way of losing a connection may look like the end of its task."""
    server.silent_to.add(commands.Confirm.Select)
    publisher = Publisher("test", at(server, heartbeat=1))
    async with running(publisher.link):
        await until(lambda: server.count(commands.Confirm.Select) == 1)
        await until(lambda: len(server.clients) > 1)
        server.silent_to.clear()
        await until(lambda: publisher.up)


async def test_a_broker_that_dies_during_the_setup_does_not_end_the_link(server: AmqpServer) -> None:
    """The same for a connection that is cut."""
    server.silent_to.add(commands.Confirm.Select)
    publisher = Publisher("test", at(server))
    async with running(publisher.link):
        await until(lambda: server.count(commands.Confirm.Select) == 1)
        server.silent_to.clear()
        server.drop()
        await until(lambda: publisher.up)


async def test_a_real_cancellation_stays_one() -> None:
    """Only a CancelledError that nobody asked for is renamed."""

    async def work() -> None:
        with losses_named():
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await asyncio.wait({task}, timeout=0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_cancellation_is_not_hidden_by_a_loss_at_the_same_moment(server: AmqpServer) -> None:
    """`wait_for` in Python 3.11 raises what the cancelled connect raised: a link would go on for ever."""
    begun = asyncio.Event()

    async def setup(session: Session) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionRefusedError from None

    async with running(Link("test", at(server), setup)):
        await asyncio.wait_for(begun.wait(), 5)


async def test_a_cancellation_is_not_hidden_by_a_connect_at_the_same_moment(
    server: AmqpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other half of the same: the connection that nobody wants any longer is closed."""
    begun = asyncio.Event()
    connect = aio_pika.connect

    async def stubborn(*arguments: Any, **options: Any) -> Any:
        connection = await connect(*arguments, **options)
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return connection

    monkeypatch.setattr("aio_pika.connect", stubborn)
    async with running(Link("test", at(server), _nothing)):
        await asyncio.wait_for(begun.wait(), 5)
    await until(lambda: server.count(commands.Connection.Close) == 1)


async def test_a_cancelled_publish_is_not_taken_for_a_lost_one(
    server: AmqpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cancelled it must not find it published again."""
    publisher = Publisher("test", at(server))
    begun = asyncio.Event()

    async def publish(*_: object, **__: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError from None

    monkeypatch.setattr("aio_pika.Exchange.publish", publish)
    async with running(publisher.link):
        await until(lambda: publisher.up)
        task = asyncio.ensure_future(publisher.publish("e", "k", ENVELOPE, timeout=9))
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


async def test_the_password_is_read_anew_for_each_connection(server: AmqpServer, tmp_path: Path) -> None:
    """So that it can be changed while the service runs; a file that is missing for a moment is no end."""
    secret = tmp_path / "password"
    link = Link("test", Server(f"amqp://u@127.0.0.1:{server.port}/", secret), _nothing)
    async with running(link):
        await until(lambda: not link.up.is_set())
        secret.write_text("one\n")
        await until(link.up.is_set)
        secret.write_text("two\n")
        server.drop()
        await until(lambda: server.count(commands.Connection.StartOk) == 2)
    replies = [frame.response for frame in server.seen if isinstance(frame, commands.Connection.StartOk)]
    assert replies == ["\0u\0one", "\0u\0two"]


async def _nothing(session: Session) -> None:
    """A setup that needs nothing."""


async def test_a_consumer_cancelled_by_the_broker_ends_the_session(server: AmqpServer) -> None:
    """Its queue went away: the link sets up again, so the consumer is renewed."""

    async def setup(session: Session) -> None:
        channel = await session.channel(prefetch=3)
        await private_queue(channel, "q", "e", "k", {})
        await consume(channel, "q", _swallow)

    link = Link("test", at(server), setup)
    async with running(link):
        await until(link.up.is_set)
        (tag,) = server.consumers
        client, channel = server.consumers[tag]
        client.send(channel, Basic.Cancel(tag, nowait=True))
        await until(lambda: server.count(Basic.Consume) == 2 and link.up.is_set())


async def test_a_channel_closed_by_the_broker_ends_the_session(server: AmqpServer) -> None:
    """A connection without its channel would stay up and do nothing."""
    publisher = Publisher("test", at(server))
    async with running(publisher.link):
        await until(lambda: publisher.up)
        client = server.clients[0]
        client.send(next(iter(client.channels)), commands.Channel.Close(404, "NOT_FOUND", 60, 40))
        await until(lambda: server.count(commands.Confirm.Select) == 2 and publisher.up)


async def _swallow(delivery: Delivery) -> None:
    await delivery.ack()


async def test_a_delivery_is_settled_once(server: AmqpServer) -> None:
    """A second ack is a protocol error: the broker would close the channel and requeue all that runs on it."""
    deliveries: list[Delivery] = []

    async def received(delivery: Delivery) -> None:
        deliveries.append(delivery)

    async def setup(session: Session) -> None:
        await consume(await session.channel(), "q", received)

    link = Link("test", at(server), setup)
    async with running(link):
        await until(link.up.is_set)
        (tag,) = server.consumers
        server.deliver(tag, b"hello")
        await until(lambda: deliveries)
        delivery = deliveries[0]
        assert (delivery.body, delivery.redelivered, delivery.envelope().correlation_id) == (b"hello", False, "c0ffee")
        settled = list(await asyncio.gather(delivery.ack(), delivery.requeue(), delivery.ack()))
        assert settled == [True, False, False]
        await until(lambda: server.count(Basic.Ack) == 1)
        assert server.count(Basic.Nack) == 0


async def test_an_ack_behind_a_lost_connection_says_so(server: AmqpServer) -> None:
    """False, and no exception: the broker has given the message to somebody else. The callback itself is cancelled."""
    deliveries: list[Delivery] = []
    ended: list[BaseException] = []

    async def received(delivery: Delivery) -> None:
        deliveries.append(delivery)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    async def setup(session: Session) -> None:
        await consume(await session.channel(), "q", received)

    link = Link("test", at(server), setup)
    async with running(link):
        await until(link.up.is_set)
        (tag,) = server.consumers
        server.deliver(tag, b"hello")
        await until(lambda: deliveries)
        server.drop()
        await until(lambda: ended)
        assert False is await deliveries[0].ack()


async def test_a_heartbeat_alone_keeps_the_connection(server: AmqpServer) -> None:
    """Frames of any kind count as a sign of life."""
    link = Link("test", at(server), _nothing)
    async with running(link):
        await until(link.up.is_set)
        server.clients[0].send(0, Heartbeat(), Heartbeat())
        server.clients[0].send(0, commands.Connection.Blocked("memory"), commands.Connection.Unblocked())
        await asyncio.wait_for(server.clients[0].writer.drain(), 1)
        assert link.up.is_set()


@asynccontextmanager
async def session_of(server: AmqpServer) -> AsyncIterator[Session]:
    sessions: list[Session] = []

    async def setup(session: Session) -> None:
        sessions.append(session)

    async with running(Link("test", at(server), setup)) as link:
        await until(link.up.is_set)
        yield sessions[0]
        assert len(sessions) == 1, "the connection was lost"


async def test_a_consumer_says_who_it_is_and_how_it_is_preferred(server: AmqpServer) -> None:
    """Tag, priority and exclusiveness are the broker's; without them nothing of the kind is sent."""
    async with session_of(server) as session:
        await consume(await session.channel(), "q", _swallow, tag="worker-1", priority=-5, exclusive=True)
        await consume(await session.channel(), "q", _swallow)
    first, second = (frame for frame in server.seen if isinstance(frame, Basic.Consume))
    assert (first.consumer_tag, first.arguments, first.exclusive) == ("worker-1", {"x-priority": -5}, True)
    assert (not second.arguments, second.exclusive, second.consumer_tag != "") == (True, False, True)


async def test_a_lease_that_is_refused_costs_its_channel_and_no_more(server: AmqpServer) -> None:
    """Another has the partition: whoever tried is told, and the connection and its other channels go on."""
    server.refusals["q"] = commands.Channel.Close(403, "ACCESS_REFUSED - in exclusive use", 60, 20)
    lost: list[str] = []
    async with session_of(server) as session:
        other = await session.channel()
        channel = await session.channel(lost=lost.append)
        with pytest.raises(LOSSES):
            await consume(channel, "q", _swallow, exclusive=True)
        await until(lambda: lost)
        await consume(other, "r", _swallow)


async def test_consumers_are_counted_without_declaring_anything(server: AmqpServer) -> None:
    """A passive declare: it takes no permission."""
    server.counts = {"q": 3}
    async with session_of(server) as session:
        channel = await session.channel(lost=lambda why: None)
        assert [await consumers(channel, "q"), await consumers(channel, "r")] == [3, 0]
    assert {frame.passive for frame in server.seen if isinstance(frame, commands.Queue.Declare)} == {True}


async def test_whether_a_queue_exists_is_asked_on_a_channel_of_its_own(server: AmqpServer) -> None:
    """The broker closes it when the answer is no; the connection lives."""
    server.refusals["missing"] = commands.Channel.Close(404, "NOT_FOUND - no queue 'missing'", 50, 10)
    async with session_of(server) as session:
        assert [await session.exists("missing"), await session.exists("there")] == [False, True]


async def test_an_object_that_is_another_one_is_told_by_its_name(server: AmqpServer) -> None:
    """With what was asked for and what the broker says to it: a person has to decide."""
    queue = topology.pool("shop", 7, 1024)
    server.refusals[queue.name] = commands.Channel.Close(406, "PRECONDITION_FAILED - inequivalent arg", 50, 10)
    with pytest.raises(Different) as caught:
        async with Topologist(at(server)) as broker:
            await broker.queue(queue, "classic")
    for part in ("pool.shop", "x-max-length=7", "x-queue-type=classic", "inequivalent arg"):
        assert part in str(caught.value)


async def test_a_message_says_whose_it_is_and_whether_it_outlasts_the_broker(server: AmqpServer) -> None:
    """The user that the broker checks, and the delivery mode; the ordinary message has neither."""
    publisher = Publisher("test", at(server))
    order = Envelope(Kind.DRAIN, "order", "operator", user_id="operator", persistent=True)
    async with running(publisher.link):
        await until(lambda: publisher.up)
        await publisher.publish("e", "k", order, timeout=2)
        await publisher.publish("e", "k", ENVELOPE, timeout=2)
        await publisher.publish("e", "k", Envelope(Kind.NOTICE, "notice", "worker-1"), b"{}", timeout=2)
    found = [(content.properties.user_id, content.properties.delivery_mode) for _, content in server.published]
    assert found == [("operator", 2), (None, 1), (None, 1)]
    assert server.published[2][1].properties.content_type == "application/json"


async def test_who_waits_for_a_delivery_to_be_settled_hears_it_once(server: AmqpServer) -> None:
    """Also when the channel is gone: its slot is free all the same."""
    deliveries: list[Delivery] = []
    heard: list[int] = []

    async def received(delivery: Delivery) -> None:
        delivery.settling = lambda: heard.append(len(heard))
        deliveries.append(delivery)

    async with session_of(server) as session:
        await consume(await session.channel(), "q", received, tag="t")
        server.deliver("t", b"one", 1)
        server.deliver("t", b"two", 2)
        await until(lambda: len(deliveries) == 2)
        assert await deliveries[0].ack()
        await deliveries[0].ack()
        assert heard == [0]
    assert deliveries[0].user_id is None
    assert not await deliveries[1].ack()
    assert heard == [0, 1]
