"""The worker's two connections: one publishes, one consumes its pools and the queue of what edges tell it."""

import math
import time
from collections.abc import Callable

import structlog

from rabbitbal.runtime.broker import Delivery, Link, Publisher, Server, Session, Verdict, consume, private_queue
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.worker.pools import Pools
from rabbitbal.worker.settings import Membership

log = structlog.get_logger()


class WorkerBroker:
    """Ready when every pool's consumer was confirmed by the broker and answers can be published."""

    def __init__(self, server: Server, worker: str, memberships: tuple[Membership, ...]) -> None:
        self._worker = worker
        self._publisher = Publisher(f"{worker} publishes", server)
        self._consumer = Link(f"{worker} consumes", server, self._consume, self._lost)
        self.pools = Pools(worker, memberships)
        self.since = math.inf
        """Seconds since the Unix epoch: what edges told this worker before was not heard."""
        self.told: Callable[[Envelope, bytes], None] = lambda envelope, payload: None
        self.ordered: Callable[[Kind], None] = lambda kind: None
        """Hears what the operator wants: DRAIN or RESUME."""

    async def run_publisher(self) -> None:
        await self._publisher.link.run()

    async def run_consumer(self) -> None:
        await self._consumer.run()

    def ready(self) -> bool:
        """A worker that is out of its pools by order is as it should be."""
        return self._publisher.up and self._consumer.up.is_set() and self.pools.complete

    async def wait_up(self) -> None:
        await self._publisher.link.up.wait()

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict:
        return await self._publisher.publish(exchange, key, envelope, body, timeout=timeout)

    async def _consume(self, session: Session) -> None:
        # Without a way to answer there is no point in taking requests.
        await self._publisher.link.up.wait()
        own = topology.worker_queue(self._worker)
        channel = await session.channel()
        keys = (self._worker, topology.EVERY_WORKER)
        await private_queue(channel, own, topology.STREAMS, keys, topology.PRIVATE_QUEUE_ARGUMENTS)
        self.since = time.time()
        await consume(channel, own, self._told, no_ack=True)
        await self.pools.join(session)

    def _lost(self) -> None:
        self.pools.lost()

    async def _told(self, delivery: Delivery) -> None:
        try:
            envelope = delivery.envelope()
        except WireError as error:
            log.warning("worker.bad_message", error=str(error))
            return
        if envelope.kind is Kind.DRAIN or envelope.kind is Kind.RESUME:
            # Edges may publish to this queue, too. The broker has checked the name of the user.
            if delivery.user_id == topology.OPERATOR:
                self.ordered(envelope.kind)
            else:
                log.warning("worker.order_refused", order=envelope.kind.value, user=delivery.user_id)
            return
        # Without a wait before this, the pieces of a body stay in their order.
        self.told(envelope, delivery.body)
