"""The worker's two connections: one publishes, one consumes its pools and the queue of what edges tell it."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable

import structlog

from rabbitbal.runtime.broker import LOSSES, Delivery, Link, Publisher, Server, Session, Verdict, consume, private_queue
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope
from rabbitbal.wire.errors import WireError

log = structlog.get_logger()

RENEW_PERIOD = 1.0


class WorkerBroker:
    """Ready when every pool's consumer was confirmed by the broker and answers can be published."""

    def __init__(self, server: Server, worker: str, slots: dict[str, int]) -> None:
        self._worker = worker
        self._slots = slots
        self._publisher = Publisher(f"{worker} publishes", server)
        self._consumer = Link(f"{worker} consumes", server, self._consume, self._lost)
        self._consuming: dict[str, Callable[[], Awaitable[None]]] = {}
        self._renewals: set[asyncio.Task[None]] = set()
        self._leaving = False
        self.since = math.inf
        """Seconds since the Unix epoch: what edges told this worker before was not heard."""
        self.handle: Callable[[Delivery, str], Awaitable[None]] = _nobody
        self.told: Callable[[Envelope, bytes], None] = lambda envelope, payload: None

    async def run_publisher(self) -> None:
        await self._publisher.link.run()

    async def run_consumer(self) -> None:
        await self._consumer.run()

    def ready(self) -> bool:
        return self._publisher.up and self._consumer.up.is_set() and len(self._consuming) == len(self._slots)

    async def wait_up(self) -> None:
        await self._publisher.link.up.wait()

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict:
        return await self._publisher.publish(exchange, key, envelope, body, timeout=timeout)

    async def leave(self) -> None:
        """Take no more: on return the broker delivers nothing further."""
        self._leaving = True
        while self._consuming:
            _, cancel = self._consuming.popitem()
            with contextlib.suppress(*LOSSES):
                await cancel()

    async def _consume(self, session: Session) -> None:
        # Without a way to answer there is no point in taking requests.
        await self._publisher.link.up.wait()
        own = topology.worker_queue(self._worker)
        channel = await session.channel()
        keys = (self._worker, topology.EVERY_WORKER)
        await private_queue(channel, own, topology.STREAMS, keys, topology.PRIVATE_QUEUE_ARGUMENTS)
        self.since = time.time()
        await consume(channel, own, self._told, no_ack=True)
        # The connection may come back while what runs is being finished; nothing new is taken then.
        for pool in () if self._leaving else self._slots:
            await self._join(session, pool)

    async def _join(self, session: Session, pool: str) -> None:
        """Consume a pool on a channel of its own: the prefetch of the channel is the number of slots.

        Should the broker cancel the consumer (the queue was deleted), only this pool is joined again, when its queue
        is back; what runs for other pools goes on.
        """

        cancel: Callable[[], Awaitable[None]] | None = None

        def lost(why: str) -> None:
            # A channel may tell of its end twice, or when another has taken its place.
            if cancel is not None and self._consuming.get(pool) is cancel:
                del self._consuming[pool]
                log.warning("pool.lost", pool=pool, why=why)
                task = asyncio.ensure_future(self._rejoin(session, pool))
                self._renewals.add(task)
                task.add_done_callback(self._renewals.discard)

        channel = await session.channel(prefetch=self._slots[pool], lost=lost)

        async def received(delivery: Delivery) -> None:
            await self.handle(delivery, pool)

        cancel = await consume(channel, topology.pool_queue(pool), received)
        if self._leaving:
            await cancel()
            return
        self._consuming[pool] = cancel
        log.info("pool.joined", pool=pool, slots=self._slots[pool])

    async def _rejoin(self, session: Session, pool: str) -> None:
        while pool not in self._consuming and not self._leaving and self._consumer.up.is_set():
            try:
                await self._join(session, pool)
            except LOSSES as error:
                log.warning("pool.missing", pool=pool, error=str(error))
                await asyncio.sleep(RENEW_PERIOD)

    def _lost(self) -> None:
        self._consuming.clear()
        for task in self._renewals:
            task.cancel()

    async def _told(self, delivery: Delivery) -> None:
        try:
            envelope = delivery.envelope()
        except WireError as error:
            log.warning("worker.bad_message", error=str(error))
            return
        # Without a wait before this, the pieces of a body stay in their order.
        self.told(envelope, delivery.body)


async def _nobody(delivery: Delivery, pool: str) -> None:
    await delivery.requeue()
