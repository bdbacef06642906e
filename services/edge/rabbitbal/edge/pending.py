"""The life of a request in the edge, and every way it can end.

Theory of operation
-------------------
A request is *pending* from `Pending.run` until its `Ticket` is settled. Exactly one call to `Ticket.settle` wins, so a
request has exactly one ending; whatever arrives afterwards (a late answer, a second answer) finds no ticket and is
dropped. The ticket is settled by whichever comes first:

* a **response** of a worker, of any attempt: an answer is an answer;
* the **deadline**: `worker-timeout` if a worker has claimed the request, else `queue-timeout`. No worker starts a
  request behind its deadline, so "it was not run" is the truth for the second;
* the **client leaves**: `client-gone`; the worker that claimed the request is sent a cancel, else the one that will;
* the **broker refuses** the publish: `overloaded` (pool queue full), `unroutable` (no pool bound, after a grace),
  `broker-down` (no connection, after a grace; it was never sent);
* the broker hands the request out a second time: the worker that gets it does not run it but says `redelivered` and
  gives it up. The edge, who holds the request and its policy, decides: publish it again as the next attempt if it
  may run twice, else `worker-lost`; after `MAX_LOSSES` times `poison`, and a copy goes to the dead-letter exchange.
  The notice names the attempt, so a notice that comes twice counts once;
* the **connection to the broker is lost** after the publish: the request or its answer may be lost with it. Published
  again if it may run twice, else `worker-lost` at once: to wait would promise an answer that may never come.

A request that was never sent may always wait: sending is what makes it unsafe.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Protocol

import structlog

from rabbitbal.edge.retry_after import QueueWait
from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import Envelope, Kind
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.message import Response, decode_request, decode_response, encode_request, is_whole, without_body
from rabbitbal.wire.reasons import Reason, error_response, status_of

log = structlog.get_logger()

MAX_LOSSES = 3
RETRY_PERIOD = 0.1
NOTICE_TIMEOUT = 5.0
# Notices on their way at one time; each request may cause two, and a blocked broker takes none.
MAX_NOTICES = 1000


class Broker(Protocol):
    """What the pending requests need of the broker."""

    def up(self) -> bool:
        """Publishing works and replies are being consumed."""

    async def wait_up(self) -> None: ...

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Order:
    """A request to be carried, and the policy of its route. Times are in seconds."""

    payload: bytes
    method: str
    route: str
    repeatable: bool
    timeout: float
    route_grace: float
    broker_grace: float
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended. ``reason`` is None when the application answered. Times are in seconds."""

    response: Response
    reason: Reason | None
    worker: str | None
    attempt: int
    total: float
    app: float | None


class Ticket:
    """A pending request."""

    __slots__ = (
        "attempt",
        "claimed_by",
        "copied",
        "deadline",
        "envelope",
        "losses",
        "order",
        "outcome",
        "sender",
        "sent",
        "started",
    )

    def __init__(self, envelope: Envelope, order: Order, loop: asyncio.AbstractEventLoop) -> None:
        self.envelope = envelope
        self.order = order
        self.started = loop.time()
        self.deadline = self.started + order.timeout
        self.outcome: asyncio.Future[tuple[Reason | None, Response | None, Envelope | None]] = loop.create_future()
        self.attempt = 1
        self.losses = 0
        self.sent = False
        self.copied = False
        self.claimed_by: str | None = None
        self.sender: asyncio.Task[None] | None = None

    @property
    def settled(self) -> bool:
        return self.outcome.done()

    def settle(self, reason: Reason | None, response: Response | None = None, reply: Envelope | None = None) -> None:
        if not self.outcome.done():
            self.outcome.set_result((reason, response, reply))

    def expire(self) -> None:
        self.settle(Reason.WORKER_TIMEOUT if self.claimed_by else Reason.QUEUE_TIMEOUT)


class Pending:
    """The requests in flight in this edge."""

    def __init__(self, edge: str, broker: Broker, max_pending: int, buffer_limit: int) -> None:
        self._edge = edge
        self._broker = broker
        self._max_pending = max_pending
        self._buffer_limit = buffer_limit
        self._tickets: dict[str, Ticket] = {}
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.wait = QueueWait()
        self.endings: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def hold(self, size: int) -> bool:
        """Count bytes that are being received against the limit. False, and nothing counted, where they do not fit."""
        if self._bytes + size > self._buffer_limit:
            return False
        self._bytes += size
        return True

    def release(self, size: int) -> None:
        self._bytes -= size

    def count(self, reason: Reason | None) -> None:
        name = reason or "answered"
        self.endings[name] = self.endings.get(name, 0) + 1

    def refuse(self, reason: Reason, head: bytes) -> Response:
        """End a request that was never pending. ``head`` is what can be said of it in a log; it may be empty."""
        self.count(reason)
        event = Envelope(
            kind=Kind.ENDED,
            correlation_id=token_hex(16),
            app_id=self._edge,
            reason=reason,
            status=status_of(reason),
            duration=0,
            sent=int(time.time() * 1000),
        )
        self._tell(topology.EVENTS, f"ended.{self._edge}", event, head)
        return self.error(reason)

    def error(self, reason: Reason) -> Response:
        """What the client gets for a reason."""
        return error_response(reason, self._retry_after(reason))

    async def run(self, order: Order, gone: Callable[[Ticket], object]) -> Ending:
        """Carry a request to its ending. ``gone`` is given the ticket, to settle it when the client leaves."""
        loop = asyncio.get_running_loop()
        ticket = self._ticket(order, loop)
        if len(self._tickets) >= self._max_pending or self._bytes + len(order.payload) > self._buffer_limit:
            ticket.settle(Reason.OVERLOADED)
            return self._end(ticket)
        self._tickets[ticket.envelope.correlation_id] = ticket
        self._bytes += len(order.payload)
        timer = loop.call_at(ticket.deadline, ticket.expire)
        try:
            gone(ticket)
            self._send(ticket)
            # Shielded, or cancelling this task would cancel the outcome, and with it the ending told below.
            await asyncio.shield(ticket.outcome)
        finally:
            timer.cancel()
            if ticket.sender is not None:
                ticket.sender.cancel()
            del self._tickets[ticket.envelope.correlation_id]
            self._bytes -= len(order.payload)
            # Also when this task itself is cancelled: the edge is going down and the client hears it by the close.
            ticket.settle(Reason.CLIENT_GONE)
            ending = self._end(ticket)
        return ending

    def _ticket(self, order: Order, loop: asyncio.AbstractEventLoop) -> Ticket:
        now = time.time()
        envelope = Envelope(
            kind=Kind.REQUEST,
            correlation_id=token_hex(16),
            app_id=self._edge,
            reply_to=topology.response_key(self._edge),
            expiration=int(order.timeout * 1000),
            deadline=int((now + order.timeout) * 1000),
            sent=int(now * 1000),
            repeatable=order.repeatable,
            route=order.route,
            traceparent=order.traceparent,
        )
        return Ticket(envelope, order, loop)

    # --- publishing

    def _send(self, ticket: Ticket) -> None:
        # The attempt before may still wait for its confirm; if that fails it must not publish this one a second time.
        if ticket.sender is not None:
            ticket.sender.cancel()
        ticket.sender = asyncio.get_running_loop().create_task(self._publish(ticket))

    async def _publish(self, ticket: Ticket) -> None:
        """Publish one attempt, until a queue has it or the ticket is settled."""
        loop = asyncio.get_running_loop()
        unbound_since: float | None = None
        try:
            while not ticket.settled:
                if not self._broker.up() and not await self._broker_back(ticket):
                    ticket.settle(Reason.BROKER_DOWN)
                    return
                left = ticket.deadline - loop.time()
                envelope = replace(ticket.envelope, attempt=ticket.attempt, expiration=max(int(left * 1000), 1))
                ticket.sent = True
                try:
                    verdict = await self._broker.publish(
                        topology.REQUESTS,
                        topology.request_key(ticket.order.route),
                        envelope,
                        ticket.order.payload,
                        timeout=max(left, 0.001),
                    )
                except Disconnected as error:
                    ticket.sent = False
                    ticket.copied |= error.sent
                    if error.sent and not ticket.order.repeatable:
                        ticket.settle(Reason.WORKER_LOST)
                    await asyncio.sleep(RETRY_PERIOD / 10)
                    continue
                ticket.copied |= verdict is not Verdict.UNROUTABLE
                if verdict is Verdict.ROUTED:
                    return
                ticket.sent = False
                if verdict is Verdict.REJECTED:
                    # Accepted once, a request keeps its place in the world: later attempts wait for room.
                    if ticket.attempt == 1:
                        ticket.settle(Reason.OVERLOADED)
                        return
                else:
                    unbound_since = unbound_since or loop.time()
                    if loop.time() - unbound_since >= ticket.order.route_grace:
                        ticket.settle(Reason.UNROUTABLE)
                        return
                await asyncio.sleep(RETRY_PERIOD)
        except Exception:
            log.exception("edge.publish_failed", id=ticket.envelope.correlation_id)
            ticket.settle(Reason.EDGE_ERROR)

    async def _broker_back(self, ticket: Ticket) -> bool:
        try:
            async with asyncio.timeout(ticket.order.broker_grace):
                await self._broker.wait_up()
        except TimeoutError:
            return False
        return True

    # --- what the broker brings

    def reply(self, envelope: Envelope, payload: bytes) -> None:
        """A worker's message. Raises WireError when it makes no sense."""
        ticket = self._tickets.get(envelope.correlation_id)
        if envelope.kind is Kind.CLAIM:
            if ticket is None or ticket.settled:
                self._cancel(envelope.correlation_id, envelope.app_id)
            elif envelope.attempt == ticket.attempt:
                ticket.claimed_by = envelope.app_id
        elif envelope.kind is Kind.REDELIVERED:
            if ticket is not None and envelope.attempt == ticket.attempt and not ticket.settled:
                self._redelivered(ticket)
        elif envelope.kind is Kind.RESPONSE:
            if ticket is None:
                log.debug("edge.late_response", id=envelope.correlation_id, worker=envelope.app_id)
                return
            try:
                response = decode_response(payload)
                if not is_whole(response, ticket.order.method):
                    raise WireError("the body is not of the declared length")
                ticket.settle(envelope.reason, response, envelope)
            except WireError:
                ticket.settle(Reason.BAD_RESPONSE, None, envelope)
                raise
        else:
            raise WireError(f"kind {envelope.kind} is not for an edge")

    def _redelivered(self, ticket: Ticket) -> None:
        ticket.losses += 1
        ticket.claimed_by = None
        if not ticket.order.repeatable:
            ticket.settle(Reason.WORKER_LOST)
        elif ticket.losses >= MAX_LOSSES:
            ticket.settle(Reason.POISON)
            envelope = replace(ticket.envelope, attempt=ticket.attempt, reason=Reason.POISON, expiration=None)
            self._tell(topology.DEAD, "", envelope, ticket.order.payload)
        else:
            ticket.attempt += 1
            self._send(ticket)

    def broker_lost(self) -> None:
        """A connection is gone, and with it perhaps requests or replies."""
        for ticket in list(self._tickets.values()):
            if not ticket.sent or ticket.settled:
                continue
            if not ticket.order.repeatable:
                ticket.settle(Reason.WORKER_LOST)
            else:
                ticket.claimed_by = None
                ticket.attempt += 1
                self._send(ticket)

    # --- endings

    def _end(self, ticket: Ticket) -> Ending:
        reason, response, reply = ticket.outcome.result()
        total = asyncio.get_running_loop().time() - ticket.started
        app = reply.duration / 1e6 if reply is not None and reply.duration is not None else None
        if reason is None and app is not None:
            self.wait.add(total - app)
        self.count(reason)
        if reason is not None:
            response = self.error(reason)
            if reply is None:
                self._announce(ticket, reason, total)
            if ticket.claimed_by is not None and reply is None:
                self._cancel(ticket.envelope.correlation_id, ticket.claimed_by)
        assert response is not None  # noqa: S101 - settle() gives a reason or a response
        return Ending(response, reason, reply.app_id if reply else None, ticket.attempt, total, app)

    def _retry_after(self, reason: Reason) -> int | None:
        if reason is Reason.BROKER_DOWN or reason is Reason.UNROUTABLE:
            return 5
        return self.wait.retry_after() if reason is Reason.OVERLOADED else None

    def _announce(self, ticket: Ticket, reason: Reason, total: float) -> None:
        """Tell the tap of an ending that no worker's response tells."""
        log.info("request.ended", reason=reason.value, id=ticket.envelope.correlation_id, attempt=ticket.attempt)
        event = Envelope(
            kind=Kind.ENDED,
            correlation_id=ticket.envelope.correlation_id,
            app_id=self._edge,
            attempt=ticket.attempt,
            reason=reason,
            status=status_of(reason),
            duration=int(total * 1e6),
            sent=int(time.time() * 1000),
            route=ticket.order.route,
        )
        head = b""
        if not ticket.copied and self._can_tell():
            # A tap has seen what was given to a pool; of anything else it learns here.
            head = encode_request(without_body(decode_request(ticket.order.payload)))
        self._tell(topology.EVENTS, f"ended.{self._edge}", event, head)

    def _cancel(self, correlation_id: str, worker: str) -> None:
        envelope = Envelope(kind=Kind.CANCEL, correlation_id=correlation_id, app_id=self._edge)
        self._tell(topology.STREAMS, worker, envelope, b"")

    def _tell(self, exchange: str, key: str, envelope: Envelope, body: bytes) -> None:
        """Publish without holding anybody up. What cannot be told now is told by nobody later."""
        if self._can_tell():
            self._spawn(self._notice(exchange, key, envelope, body))

    def _can_tell(self) -> bool:
        return self._broker.up() and len(self._tasks) < MAX_NOTICES

    async def _notice(self, exchange: str, key: str, envelope: Envelope, body: bytes) -> None:
        try:
            await self._broker.publish(exchange, key, envelope, body, timeout=NOTICE_TIMEOUT)
        except Disconnected as error:
            log.info("edge.notice_lost", kind=envelope.kind.value, id=envelope.correlation_id, error=str(error))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
