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
* **another copy** of the request was answered first (`rabbitbal.edge.copies`): `superseded`, and a cancel likewise;
* the **broker refuses** the publish: `overloaded` (pool queue full), `unroutable` (no pool bound, after a grace),
  `broker-down` (no connection, after a grace; it was never sent);
* the broker hands the request out a second time: the worker that gets it does not run it but says `redelivered` and
  gives it up. The edge, who holds the request and its policy, decides: publish it again as the next attempt if it
  may run twice, else `worker-lost`; after `MAX_LOSSES` times `poison`, and a copy goes to the dead-letter exchange.
  The notice names the attempt, so a notice that comes twice counts once;
* a **worker that claimed it is gone**: a probe to its queue came back. That is such a loss, told earlier;
* the **connection to the broker is lost** after the publish: the request or its answer may be lost with it. Published
  again if it may run twice, else `worker-lost` at once: to wait would promise an answer that may never come.

A request that was never sent may always wait: sending is what makes it unsafe.

Bodies that do not travel with their heads:

* An **upload** follows its head to the worker that claims it, under the worker's credit (`_pump`), as often as it is
  claimed. It may be repeated while its spool holds all of it. Its deadline moves on with each piece.
* A **streamed response** settles the ticket with its head, and the ticket stays here until `close`: pieces arrive in
  its `Inlet`, credit goes out as the client reads (`_grant`). Nothing can be repeated then: what goes wrong breaks the
  client's connection. Such an ending is announced by an `ended` event, as is one without an answer.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from typing import Protocol

import structlog

from rabbitbal.edge.retry_after import QueueWait
from rabbitbal.edge.ticket import Ending, Order, Source, Ticket
from rabbitbal.edge.upload import BodyTooLarge, ClientGone
from rabbitbal.runtime.broker import Disconnected, Verdict
from rabbitbal.runtime.probing import Prober
from rabbitbal.runtime.streams import Broken, Inlet, Outlet
from rabbitbal.wire import topology
from rabbitbal.wire.envelope import CLAIMED_AT_ONCE, Envelope, Kind, Leg
from rabbitbal.wire.errors import WireError
from rabbitbal.wire.flow import FIRST_WINDOW, WINDOW
from rabbitbal.wire.message import Response, decode_request, decode_response, encode_request, is_whole, without_body
from rabbitbal.wire.reasons import Reason, error_response, status_of

log = structlog.get_logger()

MAX_LOSSES = 3
RETRY_PERIOD = 0.1
# A binding that is moved is away for milliseconds.
FIRST_RETRY = 0.01
NOTICE_TIMEOUT = 5.0
# Notices on their way at one time; each request may cause two, and a blocked broker takes none.
MAX_NOTICES = 1000
# Bounds a piece of an upload on its way to a worker's queue.
PIECE_TIMEOUT = 10.0
# What was sent before a worker's queue went away may still be on its way through ours.
LAST_WORDS = 1.0


class Broker(Protocol):
    """What the pending requests need of the broker."""

    def up(self) -> bool:
        """Publishing works and replies are being consumed."""

    async def wait_up(self) -> None: ...

    async def publish(self, exchange: str, key: str, envelope: Envelope, body: bytes, *, timeout: float) -> Verdict: ...


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
        self.prober = Prober(self._probe, self._worker_gone)
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

    def _count(self, ticket: Ticket, reason: Reason | None) -> None:
        if ticket.order.leg is not Leg.SHADOW:
            self.count(reason)

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

    def roomy(self) -> bool:
        """Whether there is so much room that it may be used for what nobody waits for."""
        return len(self._tickets) * 2 <= self._max_pending and self._bytes * 2 <= self._buffer_limit

    def notice(self, payload: dict[str, object]) -> None:
        """Tell the tap of something that belongs to no request."""
        said = {"who": self._edge, "when": datetime.now(UTC).isoformat(timespec="milliseconds"), **payload}
        envelope = Envelope(Kind.NOTICE, "notice", self._edge)
        self._tell(topology.EVENTS, topology.notice_key("edge", self._edge), envelope, json.dumps(said).encode())

    def gathered(self, group: str, order: Order, status: int, size: int, total: float) -> None:
        """Tell the tap what a client got that was put together of several answers, ``total`` seconds after it asked."""
        event = Envelope(
            kind=Kind.ENDED,
            correlation_id=group,
            app_id=self._edge,
            status=status,
            size=size,
            duration=int(total * 1e6),
            sent=int(time.time() * 1000),
            route=order.route,
            group=group,
        )
        self._tell(topology.EVENTS, f"ended.{self._edge}", event, _head(order) if self._can_tell() else b"")

    async def run(self, order: Order, begin: Callable[[Ticket], object]) -> Ending:
        """Carry a request to its ending, or to the head of a response whose body goes on: then the caller must `close`
        it. ``begin`` is given the ticket, to tell it when the client leaves."""
        loop = asyncio.get_running_loop()
        ticket = self._ticket(order, loop)
        ticket.held = len(order.payload) + order.reserve
        if len(self._tickets) >= self._max_pending or not self.hold(ticket.held):
            ticket.settle(Reason.OVERLOADED)
            if order.source is not None:
                order.source.close()
            return self._end(ticket)
        self._tickets[ticket.envelope.correlation_id] = ticket
        timer = loop.call_at(ticket.deadline, self._due, ticket)
        try:
            begin(ticket)
            self._send(ticket)
            # Shielded, or cancelling this task would cancel the outcome, and with it the ending told below.
            await asyncio.shield(ticket.outcome)
        except BaseException:
            if ticket.inlet is not None and ticket.streaming is not None:
                # Nobody will close it.
                self._forget(ticket)
                self._cancel(ticket.envelope.correlation_id, *ticket.streaming)
            raise
        finally:
            timer.cancel()
            if ticket.sender is not None:
                ticket.sender.cancel()
            # Also when this task itself is cancelled: the edge is going down and the client hears it by the close.
            ticket.settle(Reason.CLIENT_GONE)
            if ticket.inlet is None:
                self._forget(ticket)
            ending = self._end(ticket)
        return ending

    def close(self, ending: Ending, reason: Reason | None, size: int, digest: str | None = None) -> None:
        """The client has ``size`` bytes of a streamed response, and that is all unless there is a ``reason``.
        ``digest`` is their SHA-256, for who compares. A second time counts for nothing."""
        ticket = ending.stream
        assert ticket is not None and ticket.streaming is not None and ticket.inlet is not None  # noqa: S101, PT018
        if ticket.envelope.correlation_id not in self._tickets:
            return
        self._forget(ticket)
        self._count(ticket, reason)
        if not ticket.inlet.ended:
            self._cancel(ticket.envelope.correlation_id, *ticket.streaming)
        total = asyncio.get_running_loop().time() - ticket.started
        self._announce(ticket, reason, total, ending.response.status, size, digest)

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.envelope.correlation_id]
        self.release(ticket.held)
        self._feed_no_more(ticket)
        if ticket.granting is not None:
            ticket.granting.cancel()
        if ticket.watched is not None:
            self.prober.forget(ticket.watched)
        if ticket.order.source is not None:
            ticket.order.source.close()

    def _due(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        if ticket.settled and not ticket.uploading:
            return
        if loop.time() < ticket.deadline:
            # An upload has moved it.
            loop.call_at(ticket.deadline, self._due, ticket)
        elif ticket.inlet is not None:
            # The answer has begun while the client still sends, and now it sends nothing that would be taken.
            if ticket.outlet is not None and not ticket.outlet.blocked:
                ticket.inlet.fail(Broken("the client stopped in the middle of its body", Reason.CLIENT_GONE))
            else:
                loop.call_later(ticket.order.timeout, self._due, ticket)
        else:
            ticket.settle(Reason.WORKER_TIMEOUT if ticket.claimed_by else Reason.QUEUE_TIMEOUT)

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
            more=True if order.source is not None else None,
            credit=FIRST_WINDOW,
            upgrade=order.upgrade,
            leg=order.leg,
            group=order.group,
            partition=order.partition,
            persistent=order.persistent,
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
        retry = min(FIRST_RETRY, RETRY_PERIOD)
        try:
            while not ticket.settled:
                if not self._broker.up() and not await self._broker_back(ticket):
                    ticket.settle(Reason.BROKER_DOWN)
                    return
                left = ticket.deadline - loop.time()
                milliseconds = max(int(left * 1000), 1)
                envelope = replace(
                    ticket.envelope,
                    attempt=ticket.attempt,
                    expiration=milliseconds,
                    deadline=int(time.time() * 1000) + milliseconds,
                )
                self._forsake(ticket)
                ticket.sent = True
                try:
                    verdict = await self._broker.publish(
                        topology.REQUESTS,
                        topology.request_key(ticket.order.key),
                        envelope,
                        ticket.order.payload,
                        timeout=max(left, 0.001),
                    )
                except Disconnected as error:
                    ticket.sent = False
                    ticket.copied |= error.sent
                    if error.sent and not ticket.repeatable:
                        ticket.settle(Reason.WORKER_LOST)
                    await asyncio.sleep(RETRY_PERIOD / 10)
                    continue
                ticket.copied |= verdict is not Verdict.UNROUTABLE
                if verdict is Verdict.ROUTED:
                    ticket.confirmed = True
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
                await asyncio.sleep(retry)
                retry = min(retry * 2, RETRY_PERIOD)
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
            self._claimed(ticket, envelope)
        elif envelope.kind is Kind.REDELIVERED:
            if ticket is None or envelope.attempt != ticket.attempt:
                return
            if not ticket.settled:
                self._lost(ticket)
            elif ticket.inlet is not None:
                ticket.inlet.fail(Broken("the worker was lost", Reason.WORKER_LOST))
        elif envelope.kind is Kind.RESPONSE:
            self._answered(ticket, envelope, payload)
        elif envelope.kind is Kind.BODY:
            if ticket is None or ticket.inlet is None or ticket.streaming != (envelope.app_id, envelope.attempt):
                # Whoever sends it will run dry of credit; a cancel spares him the wait.
                self._cancel(envelope.correlation_id, envelope.app_id, envelope.attempt)
                return
            more = bool(envelope.more)
            ticket.inlet.receive(envelope.sequence, payload, more=more, reason=envelope.reason)
        elif envelope.kind is Kind.CREDIT:
            worker = ticket and (ticket.claimed_by, ticket.attempt)
            if ticket is not None and ticket.outlet is not None and worker == (envelope.app_id, envelope.attempt):
                ticket.outlet.grant(envelope.credit or 0)
        elif envelope.kind is not Kind.PROBE:
            raise WireError(f"kind {envelope.kind} is not for an edge")

    def _claimed(self, ticket: Ticket | None, envelope: Envelope) -> None:
        if ticket is None or ticket.settled:
            if ticket is None or ticket.streaming != (envelope.app_id, envelope.attempt):
                self._cancel(envelope.correlation_id, envelope.app_id, envelope.attempt)
        elif ticket.claimed_first and (ticket.claimed_by or envelope.attempt != ticket.attempt):
            # It waits for what another one has: the body, or the answer. (One that says it twice is known.)
            if (ticket.claimed_by, ticket.attempt) != (envelope.app_id, envelope.attempt):
                self._cancel(envelope.correlation_id, envelope.app_id, envelope.attempt)
        elif envelope.attempt == ticket.attempt and ticket.claimed_by is None:
            ticket.claimed_by = envelope.app_id
            ticket.ever_claimed = True
            self._watch(ticket, envelope.app_id)
            if ticket.order.source is not None:
                self._feed(ticket, ticket.order.source, envelope.credit or 0)

    def _answered(self, ticket: Ticket | None, envelope: Envelope, payload: bytes) -> None:
        worker = envelope.app_id
        if ticket is None or ticket.settled:
            log.debug("edge.late_response", id=envelope.correlation_id, worker=envelope.app_id)
            if ticket is not None and ticket.inlet is not None and ticket.streaming == (worker, envelope.attempt):
                # The head again, as its confirm was lost; or, once it could not go on, an error in its place.
                if envelope.reason is not None:
                    ticket.inlet.fail(Broken(f"ended by {envelope.reason}", envelope.reason))
            elif envelope.more:
                self._cancel(envelope.correlation_id, envelope.app_id, envelope.attempt)
            return
        if envelope.reason is Reason.WORKER_LOST and envelope.attempt != ticket.attempt:
            # That attempt was broken off, and there is another.
            return
        more = bool(envelope.more)
        try:
            response = decode_response(payload, more=more)
            if more and ticket.order.method == "HEAD":
                raise WireError("a response to HEAD has no body")
            if response.status == 101 and ticket.order.upgrade is None:
                raise WireError("status 101 without an upgrade")
            if not more and not is_whole(response, ticket.order.method):
                raise WireError("the body is not of the declared length")
        except WireError:
            ticket.settle(Reason.BAD_RESPONSE, None, envelope)
            if more:
                self._cancel(envelope.correlation_id, envelope.app_id, envelope.attempt)
            raise
        if ticket.outlet is not None and (ticket.claimed_by, ticket.attempt) != (envelope.app_id, envelope.attempt):
            self._leave(ticket)
            self._forsake(ticket)
        if more:
            self._stream(ticket, envelope, response.status == 101)
        ticket.settle(envelope.reason, response, envelope)

    def _lost(self, ticket: Ticket) -> None:
        """The worker that had the request is gone."""
        # What nobody has started kills nobody.
        ticket.losses += not ticket.never_started
        if not ticket.repeatable and not ticket.never_started:
            ticket.settle(Reason.WORKER_LOST)
        elif ticket.losses >= MAX_LOSSES:
            ticket.settle(Reason.POISON)
            envelope = replace(ticket.envelope, attempt=ticket.attempt, reason=Reason.POISON, expiration=None)
            self._tell(topology.DEAD, "", envelope, ticket.order.payload)
        else:
            self._again(ticket)

    def _again(self, ticket: Ticket) -> None:
        self._leave(ticket)
        ticket.claimed_by = None
        ticket.confirmed = False
        ticket.attempt += 1
        self._send(ticket)

    def broker_lost(self) -> None:
        """A connection is gone, and with it perhaps requests or replies."""
        for ticket in list(self._tickets.values()):
            if ticket.inlet is not None:
                ticket.inlet.fail(Broken("the broker was lost", Reason.WORKER_LOST))
            elif ticket.settled or not ticket.sent:
                continue
            elif ticket.repeatable:
                self._again(ticket)
            elif not ticket.kept_by_broker:
                ticket.settle(Reason.WORKER_LOST)

    # --- bodies

    def _feed(self, ticket: Ticket, source: Source, credit: int) -> None:
        """Send the rest of the request's body to the worker that claimed it."""
        worker = ticket.claimed_by
        assert worker is not None  # noqa: S101 - it has just claimed
        about = Envelope(Kind.BODY, ticket.envelope.correlation_id, self._edge, attempt=ticket.attempt)

        async def send(sequence: int, piece: bytes, more: bool, reason: Reason | None) -> None:
            await self._piece(worker, replace(about, sequence=sequence, more=more, reason=reason), piece)

        ticket.outlet = Outlet(send, credit)
        ticket.pump = asyncio.get_running_loop().create_task(self._pump(ticket, source, ticket.outlet))

    def _feed_no_more(self, ticket: Ticket) -> None:
        if ticket.pump is not None:
            ticket.pump.cancel()
        if ticket.outlet is not None:
            ticket.outlet.abandon()
        ticket.pump = ticket.outlet = None

    async def _pump(self, ticket: Ticket, source: Source, outlet: Outlet) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for piece in source.pieces():
                await outlet.write(piece)
                ticket.deadline = loop.time() + ticket.order.timeout
            await outlet.end()
            ticket.deadline = loop.time() + ticket.order.timeout
        except ClientGone:
            ticket.client_left()
        except BodyTooLarge:
            ticket.settle(Reason.BODY_TOO_LARGE)
            if ticket.inlet is not None:
                ticket.inlet.fail(Broken("the request's body is too large", Reason.BODY_TOO_LARGE))
        except Disconnected as error:
            log.info("edge.upload_broken", id=ticket.envelope.correlation_id, error=str(error))
            if ticket.outlet is outlet:
                self._upload_broken(ticket)
        except Exception:
            log.exception("edge.upload_failed", id=ticket.envelope.correlation_id)
            ticket.settle(Reason.EDGE_ERROR)

    def _upload_broken(self, ticket: Ticket) -> None:
        """The worker cannot have the whole body any more."""
        if ticket.inlet is not None:
            ticket.inlet.fail(Broken("the worker was lost", Reason.WORKER_LOST))
        elif not ticket.settled:
            self._lost(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if ticket.outlet is not None and ticket.claimed_by is not None:
            ticket.forsaken = (ticket.claimed_by, ticket.attempt)
        self._feed_no_more(ticket)

    def _forsake(self, ticket: Ticket) -> None:
        """Tell the worker of the attempt before that it waits for its body in vain. It may be there still: not it was
        lost, but a piece on its way, or our connection."""
        if ticket.forsaken is not None:
            self._cancel(ticket.envelope.correlation_id, *ticket.forsaken)
            ticket.forsaken = None

    async def _piece(self, worker: str, envelope: Envelope, piece: bytes) -> None:
        """One message to a worker's own queue. Raises Disconnected where it cannot be known to have arrived."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PIECE_TIMEOUT
        while True:
            left = max(deadline - loop.time(), 0.001)
            verdict = await self._broker.publish(topology.STREAMS, worker, envelope, piece, timeout=left)
            if verdict is Verdict.ROUTED:
                return
            # A piece that was refused leaves a gap before those that follow it; a grant does not.
            lost = verdict is Verdict.UNROUTABLE or envelope.kind is Kind.BODY
            if lost or loop.time() >= deadline:
                raise Disconnected(f"the queue of {worker} is {verdict.value}", sent=False)
            await asyncio.sleep(RETRY_PERIOD)

    def _stream(self, ticket: Ticket, envelope: Envelope, tunnel: bool) -> None:
        """The response's body will come in pieces."""

        def grant(credit: int) -> None:
            ticket.credit = max(ticket.credit, credit)
            if ticket.granting is None or ticket.granting.done():
                ticket.granting = asyncio.get_running_loop().create_task(self._grant(ticket))

        ticket.inlet = Inlet(grant, FIRST_WINDOW)
        if ticket.uploading:
            loop = asyncio.get_running_loop()
            ticket.deadline = loop.time() + ticket.order.timeout
            loop.call_at(ticket.deadline, self._due, ticket)
        ticket.streaming = (envelope.app_id, envelope.attempt)
        self._watch(ticket, envelope.app_id)
        # Where there is no memory for a wide window the first one stays; it is within what `max_pending` allows for.
        if not tunnel and self.hold(WINDOW):
            ticket.held += WINDOW
            ticket.inlet.widen(WINDOW)

    async def _grant(self, ticket: Ticket) -> None:
        """Tell the worker the newest credit until it is told."""
        assert ticket.streaming is not None  # noqa: S101 - there is an inlet
        worker, attempt = ticket.streaming
        about = Envelope(Kind.CREDIT, ticket.envelope.correlation_id, self._edge, attempt=attempt)
        told = 0
        while told < ticket.credit:
            told = ticket.credit
            try:
                await self._piece(worker, replace(about, credit=told), b"")
            except Disconnected:
                # The loss of the worker is noticed elsewhere; that of the broker, too. A bound that passed is neither.
                if ticket.inlet is not None and self._broker.up():
                    loop = asyncio.get_running_loop()
                    loop.call_later(LAST_WORDS, ticket.inlet.fail, Broken("no way to the worker", Reason.WORKER_LOST))
                return

    # --- peers

    def _watch(self, ticket: Ticket, worker: str) -> None:
        if ticket.watched is not None:
            self.prober.forget(ticket.watched)
        ticket.watched = worker
        self.prober.watch(worker)

    async def _probe(self, worker: str) -> Verdict:
        envelope = Envelope(Kind.PROBE, "probe", self._edge)
        return await self._broker.publish(topology.STREAMS, worker, envelope, b"", timeout=NOTICE_TIMEOUT)

    def _worker_gone(self, worker: str) -> None:
        """Its queue is no more, and so is whatever it ran."""
        for ticket in list(self._tickets.values()):
            if ticket.inlet is not None:
                if ticket.streaming is not None and ticket.streaming[0] == worker:
                    ticket.inlet.fail(Broken(f"{worker} is gone", Reason.WORKER_LOST))
            elif ticket.claimed_by == worker and not ticket.settled:
                self._lost(ticket)

    # --- endings

    def _end(self, ticket: Ticket) -> Ending:
        reason, response, reply = ticket.outcome.result()
        total = asyncio.get_running_loop().time() - ticket.started
        app = reply.duration / 1e6 if reply is not None and reply.duration is not None else None
        if reason is None and app is not None and ticket.order.leg is not Leg.SHADOW:
            self.wait.add(total - app)
        stream = ticket if ticket.inlet is not None else None
        if stream is None:
            self._count(ticket, reason)
        if reason is not None and stream is None:
            response = self.error(reason)
            if reply is None:
                self._announce(ticket, reason, total, status_of(reason), 0)
                if ticket.claimed_by is not None:
                    self._cancel(ticket.envelope.correlation_id, ticket.claimed_by, ticket.attempt)
                elif reason is Reason.CLIENT_GONE and ticket.sent and ticket.order.leg not in CLAIMED_AT_ONCE:
                    # Whoever has it, or will have it.
                    self._cancel(ticket.envelope.correlation_id, topology.EVERY_WORKER, ticket.attempt)
        assert response is not None  # noqa: S101 - settle() gives a reason or a response
        worker = reply.app_id if reply else None
        return Ending(response, reason, worker, ticket.attempt, total, app, reply.pool if reply else None, stream)

    def _retry_after(self, reason: Reason) -> int | None:
        if reason is Reason.BROKER_DOWN or reason is Reason.UNROUTABLE:
            return 5
        return self.wait.retry_after() if reason is Reason.OVERLOADED else None

    def _announce(
        self, ticket: Ticket, reason: Reason | None, total: float, status: int, size: int, digest: str | None = None
    ) -> None:
        """Tell the tap of an ending that no worker's response tells."""
        if reason is not None:
            log.info("request.ended", reason=reason.value, id=ticket.envelope.correlation_id, attempt=ticket.attempt)
        event = Envelope(
            kind=Kind.ENDED,
            correlation_id=ticket.envelope.correlation_id,
            app_id=self._edge,
            attempt=ticket.attempt,
            reason=reason,
            status=status,
            size=size,
            duration=int(total * 1e6),
            sent=int(time.time() * 1000),
            route=ticket.order.route,
            leg=ticket.order.leg,
            group=ticket.order.group,
            digest=digest,
        )
        head = b""
        if not ticket.copied and self._can_tell():
            # A tap has seen what was given to a pool; of anything else it learns here.
            head = _head(ticket.order)
        self._tell(topology.EVENTS, f"ended.{self._edge}", event, head)

    def _cancel(self, correlation_id: str, worker: str, attempt: int) -> None:
        """Of this attempt and those before: the next one may be on the same worker."""
        envelope = Envelope(kind=Kind.CANCEL, correlation_id=correlation_id, app_id=self._edge, attempt=attempt)
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


def _head(order: Order) -> bytes:
    """The request less its body: what a log needs."""
    return encode_request(without_body(decode_request(order.payload, more=order.source is not None)))
