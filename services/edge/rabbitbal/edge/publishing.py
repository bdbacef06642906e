"""An attempt of a request on its way to a queue."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import structlog

from rabbitbal.edge.carrier import Broker
from rabbitbal.edge.notices import Notices
from rabbitbal.edge.ticket import Ticket
from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.reasons import Reason

log = structlog.get_logger()

RETRY_PERIOD = 0.1
# A binding that is moved is away for milliseconds.
FIRST_RETRY = 0.01


def pauses() -> Iterator[float]:
    """Seconds between publishes that nobody was bound for: 10, 20, 40, 80 ms, then 100 ms."""
    pause = FIRST_RETRY
    while True:
        yield min(pause, RETRY_PERIOD)
        pause = min(pause * 2, RETRY_PERIOD)


class Publishing:
    """Publishes attempts, each until a queue has it or its ticket is settled."""

    def __init__(self, broker: Broker, notices: Notices) -> None:
        self._broker = broker
        self._notices = notices

    def send(self, ticket: Ticket) -> None:
        # The attempt before may still wait for its confirm; if that fails it must not publish this one a second time.
        if ticket.sender is not None:
            ticket.sender.cancel()
        ticket.sender = asyncio.get_running_loop().create_task(self._send(ticket))

    async def _send(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        unbound_since: float | None = None
        waits = pauses()
        try:
            while not ticket.settled:
                if not self._broker.up() and not await self._broker_back(ticket):
                    ticket.settle(Reason.BROKER_DOWN)
                    return
                try:
                    verdict = await self._publish(ticket)
                except Disconnected as error:
                    ticket.sent = False
                    if error.sent:
                        self._copied(ticket)
                    if error.sent and not ticket.repeatable:
                        ticket.settle(Reason.WORKER_LOST)
                    await asyncio.sleep(RETRY_PERIOD / 10)
                    continue
                if verdict is not Verdict.UNROUTABLE:
                    self._copied(ticket)
                if verdict is Verdict.ROUTED:
                    ticket.confirmed = True
                    return
                ticket.sent = False
                if verdict is Verdict.REJECTED:
                    # Accepted once, a request keeps its place in the world: later attempts wait for room.
                    if ticket.attempt == 1:
                        ticket.settle(Reason.OVERLOADED)
                        return
                    await asyncio.sleep(RETRY_PERIOD)
                    continue
                unbound_since = unbound_since or loop.time()
                if loop.time() - unbound_since >= ticket.order.route_grace:
                    ticket.settle(Reason.UNROUTABLE)
                    return
                await asyncio.sleep(next(waits))
        except Exception:
            log.exception("edge.publish_failed", id=ticket.envelope.correlation_id)
            ticket.settle(Reason.EDGE_ERROR)

    async def _publish(self, ticket: Ticket) -> Verdict:
        """Once. Raises Disconnected."""
        left = ticket.deadline - asyncio.get_running_loop().time()
        milliseconds = max(int(left * 1000), 1)
        envelope = replace(
            ticket.envelope,
            attempt=ticket.attempt,
            expiration=milliseconds,
            deadline=int(time.time() * 1000) + milliseconds,
        )
        self._notices.forsake(ticket)
        ticket.sent = True
        key = topology.request_key(ticket.order.key)
        return await self._broker.publish(
            topology.REQUESTS, key, envelope, ticket.order.payload, timeout=max(left, 0.001)
        )

    def _copied(self, ticket: Ticket) -> None:
        """A pool has it, or refused it: the tap has seen it."""
        ticket.copied = True
        self._notices.open(ticket)

    async def _broker_back(self, ticket: Ticket) -> bool:
        try:
            async with asyncio.timeout(ticket.order.broker_grace):
                await self._broker.wait_up()
        except TimeoutError:
            return False
        return True
