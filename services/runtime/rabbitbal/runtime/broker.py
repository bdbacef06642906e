"""Connections to RabbitMQ that come back by themselves. The only module that imports aio_pika.

A `Link` is one connection, kept up for ever: connect, set up, wait for the loss, again. aio-pika's own robust classes
are not used: they hide the moment of the loss, and that moment decides what becomes of every request in flight.
"""

import asyncio
import contextlib
import functools
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError
from yarl import URL

from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind, parse_envelope
from rabbitbal.wire.message import CONTENT_TYPE

log = structlog.get_logger()

# For annotations of whoever holds one.
Channel = AbstractChannel

CONNECT_TIMEOUT = 5.0
SETUP_TIMEOUT = 10.0
CLOSE_TIMEOUT = 2.0
FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0

# What a lost connection raises in whoever is using it. aiormq's errors about closed channels are RuntimeErrors.
LOSSES = (AMQPError, OSError, RuntimeError, EOFError, TimeoutError)
# That of them which says that there is no such queue; the broker has closed the channel then.
Missing = ChannelNotFoundEntity


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """Turn the two losses that the library does not name into ConnectionResetError.

    When heartbeats stop, the library cancels its own reader and hands that CancelledError to everybody who waits for
    the broker. When the broker closes right behind its last frame, they get a bare Exception.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        raise ConnectionResetError("no heartbeat from the broker") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ConnectionResetError("connection closed by the broker") from error


def _is_cancelled() -> bool:
    """Whether somebody asked the current task to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


@dataclass(frozen=True)
class Server:
    """Where the broker is and who we are there. The password is read anew for each connection, so it can rotate."""

    url: str
    password_file: Path | None
    # The broker counts a peer as lost after two to three of these without a byte: 12 to 18 s.
    heartbeat: int = 6

    def address(self) -> str:
        url = URL(self.url).update_query(heartbeat=str(self.heartbeat))
        if self.password_file is not None:
            url = url.with_password(self.password_file.read_text().strip())
        return str(url)


class Session:
    """One life of a connection, from the handshake to the loss."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        connection.close_callbacks.add(lambda _, error: self.end(f"connection closed: {error}"))

    def end(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(why)

    async def wait(self) -> str:
        return await asyncio.shield(self._ended)

    async def channel(
        self, *, confirms: bool = False, prefetch: int = 0, lost: Callable[[str], None] | None = None
    ) -> AbstractChannel:
        """A channel whose loss, or whose consumer's cancellation by the broker, ends the session or calls ``lost``.

        The broker cancels a consumer when its queue goes away; the library only forgets the consumer's tag, and the
        service would stay connected and receive nothing (https://www.rabbitmq.com/docs/consumer-cancel).
        """
        lost = lost or self.end
        channel = self.connection.channel(publisher_confirms=confirms)
        await channel.initialize()
        channel.close_callbacks.add(lambda _, error: lost(f"channel closed: {error}"))
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: lost("consumer cancelled by the broker"))
        if prefetch:
            await channel.set_qos(prefetch_count=prefetch)
        return channel

    async def exists(self, queue: str) -> bool:
        """Whether there is a queue of that name."""
        return await _exists(self.connection, queue)


class Link:
    """A connection that is kept up. ``setup`` prepares each new session; ``lost`` hears of the end of each."""

    def __init__(
        self,
        name: str,
        server: Server,
        setup: Callable[[Session], Awaitable[None]],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._server = server
        self._setup = setup
        self._lost = lost
        self.up = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        delay = FIRST_DELAY
        while True:
            try:
                with losses_named():
                    await self._live()
                delay = FIRST_DELAY
            except LOSSES as error:
                # A loss that comes together with a cancellation hides it (wait_for in Python 3.11 does so).
                if _is_cancelled():
                    raise asyncio.CancelledError from error
                log.warning("broker.unreachable", link=self.name, error=str(error) or type(error).__name__)
            # Jitter: a hundred workers must not come back in step.
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, LONGEST_DELAY)

    async def _live(self) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT + 1):
            connection = await aio_pika.connect(
                self._server.address(),
                timeout=CONNECT_TIMEOUT,
                client_properties={"connection_name": self.name},
            )
        session = Session(connection)
        try:
            if _is_cancelled():  # a connect that succeeds in the same moment hides it as well
                raise asyncio.CancelledError
            async with asyncio.timeout(SETUP_TIMEOUT):
                await self._setup(session)
            self.up.set()
            log.info("broker.connected", link=self.name)
            why = await session.wait()
            log.warning("broker.lost", link=self.name, why=why)
        finally:
            was_up = self.up.is_set()
            self.up.clear()
            if was_up:
                self._lost()
            with contextlib.suppress(*LOSSES):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await connection.close()


class Verdict(Enum):
    """What the broker did with a published message."""

    ROUTED = "routed"
    UNROUTABLE = "unroutable"
    REJECTED = "rejected"


class Disconnected(Exception):
    """The connection was lost, or its bound passed, before the broker confirmed: the message may or may not have been
    queued. ``sent`` is False where it certainly never left this process."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Publisher:
    """Publishes with confirms, on a connection of its own: an alarm in the broker blocks publishing connections, and
    must not stop what is being consumed (https://www.rabbitmq.com/docs/alarms)."""

    def __init__(self, name: str, server: Server, lost: Callable[[], None] = lambda: None) -> None:
        self.link = Link(name, server, self._setup, lost)
        self._channel: AbstractChannel | None = None

    async def _setup(self, session: Session) -> None:
        self._channel = await session.channel(confirms=True)

    @property
    def up(self) -> bool:
        return self.link.up.is_set()

    async def publish(
        self, exchange: str, key: str, envelope: Envelope, body: bytes = b"", *, timeout: float
    ) -> Verdict:
        """Publish, mandatory, and wait for the confirm at most ``timeout`` seconds. Raises Disconnected."""
        channel = self._channel
        if channel is None or not self.up:
            raise Disconnected("not connected", sent=False)
        message = aio_pika.Message(
            body,
            headers=envelope.headers(),
            content_type=_content_type(envelope.kind) if body else None,
            type=envelope.kind.value,
            correlation_id=envelope.correlation_id,
            reply_to=envelope.reply_to,
            expiration=None if envelope.expiration is None else max(envelope.expiration, 1) / 1000,
            app_id=envelope.app_id,
            user_id=envelope.user_id,
            delivery_mode=_PERSISTENT if envelope.persistent else _TRANSIENT,
        )
        try:
            to = await channel.get_exchange(exchange, ensure=False)
            with losses_named():
                async with asyncio.timeout(timeout):
                    result = await to.publish(message, key, mandatory=True)
        except DeliveryError:
            return Verdict.REJECTED
        except LOSSES as error:
            if _is_cancelled():
                raise asyncio.CancelledError from error
            raise Disconnected(str(error) or type(error).__name__, sent=True) from error
        return Verdict.UNROUTABLE if isinstance(result, DeliveredMessage) else Verdict.ROUTED


_PERSISTENT = aio_pika.DeliveryMode.PERSISTENT
_TRANSIENT = aio_pika.DeliveryMode.NOT_PERSISTENT


_JSON = frozenset({Kind.NOTICE, Kind.FIGURES, Kind.VERDICT})


def _content_type(kind: Kind) -> str:
    # RFC 2046 §4.5.1: a piece of a body is octets; what they mean the head has said.
    if kind is Kind.BODY:
        return "application/octet-stream"
    return "application/json" if kind in _JSON else CONTENT_TYPE


class Delivery:
    """A message that a consumer received. It is settled once: the first `ack` or `requeue` counts."""

    __slots__ = ("_message", "_settled", "body", "key", "redelivered", "settling", "user_id")

    def __init__(self, message: AbstractIncomingMessage) -> None:
        self._message = message
        self._settled = False
        self.body = message.body
        self.key = message.routing_key or ""
        self.redelivered = bool(message.redelivered)
        self.user_id = message.user_id
        """The sender's user, where it says so: the broker has checked it."""
        self.settling: Callable[[], None] = _nothing
        """Called once, when it has been settled."""

    @property
    def settled(self) -> bool:
        return self._settled

    def envelope(self) -> Envelope:
        """Raises WireError."""
        message = self._message
        return parse_envelope(
            kind=message.type,
            correlation_id=message.correlation_id,
            app_id=message.app_id,
            reply_to=message.reply_to,
            headers=message.headers,
        )

    async def ack(self) -> bool:
        """False when the channel is gone: then the broker has already given the message to somebody else."""
        return await self._settle(self._message.ack)

    async def ack_all(self) -> bool:
        """This one, and all that its channel has delivered before (https://www.rabbitmq.com/docs/confirms)."""
        return await self._settle(functools.partial(self._message.ack, multiple=True))

    async def requeue(self) -> bool:
        """Give the message back to the broker."""
        return await self._settle(self._message.nack)

    async def _settle(self, action: Callable[[], Awaitable[None]]) -> bool:
        # A second answer would be a protocol error, and the broker would close the channel with all that runs on it.
        if self._settled:
            return False
        self._settled = True
        try:
            with losses_named():
                await action()
        except LOSSES:
            return False
        finally:
            self.settling()
        return True


def _nothing() -> None: ...


async def consume(
    channel: AbstractChannel,
    queue: str,
    handle: Callable[[Delivery], Awaitable[None]],
    *,
    no_ack: bool = False,
    tag: str | None = None,
    priority: int = 0,
    exclusive: bool = False,
) -> Callable[[], Awaitable[None]]:
    """Consume from a queue; the broker has confirmed the consumer on return. Gives the function that cancels it.

    Of two consumers the one with the lower ``priority`` gets what the other has no room for
    (https://www.rabbitmq.com/docs/consumer-priority). An ``exclusive`` one is refused where there is another, and the
    broker closes the channel with ACCESS_REFUSED. ``tag`` is what the broker's tools show, unique in its channel.
    """

    async def received(message: AbstractIncomingMessage) -> None:
        await handle(Delivery(message))

    source = await channel.get_queue(queue, ensure=False)
    arguments: dict[str, Any] | None = {"x-priority": priority} if priority else None
    given = await source.consume(received, no_ack=no_ack, consumer_tag=tag, arguments=arguments, exclusive=exclusive)

    async def cancel() -> None:
        await source.cancel(given)

    return cancel


async def waiting(channel: AbstractChannel, queue: str) -> int:
    """How many messages wait in a queue. It takes no permission to ask. Raises as `consumers` does."""
    found = await channel.declare_queue(queue, passive=True)
    return found.declaration_result.message_count or 0


async def consumers(channel: AbstractChannel, queue: str) -> int:
    """How many consume from a queue. It takes no permission to ask.

    Raises one of LOSSES where there is no such queue; the broker has closed the channel then.
    """
    found = await channel.declare_queue(queue, passive=True)
    return found.declaration_result.consumer_count or 0


async def private_queue(
    channel: AbstractChannel, name: str, exchange: str, keys: Iterable[str], arguments: dict[str, Any]
) -> None:
    """Declare a queue that lives as long as this connection, bound to the keys."""
    queue = await channel.declare_queue(name, exclusive=True, durable=False, arguments=arguments)
    for key in keys:
        await queue.bind(exchange, key)


class Different(Exception):
    """An object of that name exists in the broker, and is another one than was to be declared."""


@contextlib.contextmanager
def _as_declared(name: str, arguments: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except ChannelPreconditionFailed as error:
        asked = ", ".join(f"{key}={value}" for key, value in arguments.items()) or "no arguments"
        # What it has instead only the broker knows, and says: "inequivalent arg 'x-max-length' ... received ...".
        raise Different(f"{name} exists and is not as asked for ({asked}). The broker says: {error}") from error


class Topologist:
    """A connection for who declares the topology or moves bindings; an async context manager."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __aenter__(self) -> "Topologist":
        self._connection = await aio_pika.connect(self._server.address(), timeout=CONNECT_TIMEOUT)
        self._channel = await self._connection.channel()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def exchange(self, exchange: topology.Exchange) -> None:
        """Raises Different."""
        with _as_declared(exchange.name, {"type": exchange.type, **exchange.arguments}):
            await self._channel.declare_exchange(
                exchange.name, exchange.type, durable=True, arguments=exchange.arguments or None
            )

    async def queue(self, queue: topology.Queue, queue_type: str) -> None:
        """Raises Different."""
        arguments = {**queue.arguments, "x-queue-type": queue_type}
        with _as_declared(queue.name, arguments):
            await self._channel.declare_queue(queue.name, durable=True, arguments=arguments)

    async def bind(self, binding: topology.Binding) -> None:
        queue = await self._channel.get_queue(binding.queue, ensure=False)
        await queue.bind(binding.exchange, binding.key, arguments=binding.arguments or None)

    async def unbind(self, binding: topology.Binding) -> None:
        queue = await self._channel.get_queue(binding.queue, ensure=False)
        await queue.unbind(binding.exchange, binding.key, arguments=binding.arguments or None)

    async def route(self, key: str, pool: str) -> None:
        """Bind a pool to the requests of one routing key."""
        exchange = await self._channel.get_exchange(topology.pool_exchange(pool), ensure=False)
        await exchange.bind(topology.REQUESTS, key)

    async def unroute(self, key: str, pool: str) -> None:
        """Undo `route`. It is no error where there is nothing to undo."""
        exchange = await self._channel.get_exchange(topology.pool_exchange(pool), ensure=False)
        await exchange.unbind(topology.REQUESTS, key)

    async def connect_exchanges(self, source: str, destination: str) -> None:
        """All that comes to the one exchange goes on to the other."""
        exchange = await self._channel.get_exchange(destination, ensure=False)
        await exchange.bind(source, "")

    async def exists(self, queue: str) -> bool:
        """Whether there is a queue of that name."""
        return await _exists(self._connection, queue)


async def _exists(connection: AbstractConnection, queue: str) -> bool:
    """Ask on a channel of its own: the broker closes the channel when the answer is no."""
    try:
        async with connection.channel(publisher_confirms=False) as channel:
            await channel.declare_queue(queue, passive=True)
    except ChannelNotFoundEntity:
        return False
    return True
