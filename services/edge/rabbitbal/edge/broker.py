"""The edge's two connections: one publishes, one consumes the replies."""

from collections.abc import Callable

import structlog

from rabbitbal.runtime.broker import Delivery, Link, Publisher, Server, Session, Verdict, consume, private_queue
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError

log = structlog.get_logger()


class EdgeBroker:
    """Both connections as one: up when publishing works *and* the broker confirmed the consumer of our replies."""

    def __init__(self, server: Server, edge: str) -> None:
        self._edge = edge
        self._publisher = Publisher(f"{edge} publishes", server, lambda: self.lost())
        self._consumer = Link(f"{edge} consumes", server, self._consume, lambda: self.lost())
        self.lost: Callable[[], None] = lambda: None
        self.reply: Callable[[Envelope, bytes], None] = lambda envelope, body: None
        self.verdict: Callable[[bytes], None] = lambda body: None

    async def run_publisher(self) -> None:
        await self._publisher.link.run()

    async def run_consumer(self) -> None:
        await self._consumer.run()

    def up(self) -> bool:
        return self._publisher.up and self._consumer.up.is_set()

    async def wait_up(self) -> None:
        while not self.up():
            await self._publisher.link.up.wait()
            await self._consumer.up.wait()

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict:
        return await self._publisher.publish(exchange, key, envelope, body, timeout=timeout)

    async def _consume(self, session: Session) -> None:
        channel = await session.channel()
        queue = topology.edge_queue(self._edge)
        keys = (topology.response_key(self._edge), topology.body_key(self._edge))
        await private_queue(channel, queue, topology.RESPONSES, keys, topology.PRIVATE_QUEUE_ARGUMENTS)
        await private_queue(channel, queue, topology.EVENTS, (topology.VERDICT_KEY,), topology.PRIVATE_QUEUE_ARGUMENTS)
        # No acks: a reply that this process loses has nobody left to wait for it.
        await consume(channel, queue, self._received, no_ack=True)

    async def _received(self, delivery: Delivery) -> None:
        try:
            envelope = delivery.envelope()
            if envelope.kind is not Kind.VERDICT:
                self.reply(envelope, delivery.body)
            elif delivery.user_id == topology.TAP:
                self.verdict(delivery.body)
            else:
                log.warning("edge.verdict_refused", user=delivery.user_id)
        except WireError as error:
            log.warning("edge.bad_message", error=str(error))
